/** Whatever happens in whatever order: data of one account is never shown in another. */

import fc from "fast-check";
import type { Message } from "backscroll/language";
import { expect, test } from "vitest";
import { DatabaseService, NotReadyError, ScopeSwitchedError } from "../../src/index.js";
import { type Held, HeldStore, settled } from "./held-store.js";

const SEED = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = process.env["LONG"] === undefined ? 500 : 20_000;

type Step =
  | { do: "switch" | "initialize"; scope: string }
  | { do: "call" | "command" | "subscribe" | "unsubscribe" | "change" | "gap" | "connected" | "disconnected" }
  | { do: "fulfil" | "reject"; which: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom("switch", "initialize"), scope: fc.constantFrom("ada", "bo", "cy") }),
  fc.record({
    do: fc.constantFrom("call", "command", "subscribe", "unsubscribe", "change", "gap", "connected", "disconnected"),
  }),
  // Twice as often, for otherwise most of it waits for ever.
  { weight: 2, arbitrary: fc.record({ do: fc.constant("fulfil"), which: fc.nat(20) }) },
  fc.record({ do: fc.constant("reject"), which: fc.nat(20) }),
);

/** How many turns of the microtask queue pass after a step; undefined for all. */
const pause = fc.option(fc.nat(4), { nil: undefined, freq: 3 });

/** An application that switches, asks and watches; it notes what it is shown of an account that is not open. */
class Application {
  readonly store = new HeldStore();
  readonly database = new DatabaseService(this.store);
  readonly problems: string[] = [];
  /** The account that was asked for last. */
  account = "";
  #generation = 0;
  /** The switches that were done before the next one was called. */
  readonly #opened = new Set<number>();
  /** The calls whose reply was not there when the account was left. */
  readonly #abandoned = new Set<Held | undefined>();
  readonly #live = this.database.watch("get-messages", { roomId: "home" });
  #ends: (() => void)[] = [];

  constructor() {
    this.database.isReady.subscribe(() => {
      this.check("when isReady changed");
    });
  }

  check(when: string): void {
    this.#checkShown(this.#live.value, when);
    if (!this.database.isReady.value && this.#live.value !== undefined) this.problems.push(`shown, not ready, ${when}`);
  }

  act(step: Step): void {
    if ("scope" in step) this.#switch(step.scope, step.do);
    else if (step.do === "call") this.#call(() => this.database.getMessages("home"));
    else if (step.do === "command") this.#call(() => this.database.clearRoomMessages("home"));
    else if (step.do === "subscribe") {
      this.#ends.push(
        this.#live.subscribe(() => {
          this.check("when the live query changed");
        }),
      );
    } else if (step.do === "unsubscribe") this.#ends.pop()?.();
    else if (step.do === "change") this.store.change("home");
    else if (step.do === "gap" || step.do === "connected") this.store.emit({ type: step.do });
    else if (step.do === "disconnected")
      this.store.emit({ type: step.do, problem: { code: "unavailable", message: "" } });
    else if ("which" in step) {
      const held = this.store.held[step.which % this.store.held.length];
      if (step.do === "fulfil") held?.fulfil();
      else held?.reject(new Error("the store could not"));
    }
    this.check(`after ${step.do}`);
  }

  async finish(): Promise<void> {
    await this.store.flow();
    this.check("at the end");
    this.#switch("ada", "switch");
    this.#live.subscribe(() => undefined);
    await this.store.flow();
    expect(this.database.isReady.value).toBe(true);
    expect(this.#live.value).toMatchObject([{ content: expect.stringMatching(/^ada:/) as string }]);
    this.database.close();
    expect(this.#live.value).toBeUndefined();
    expect(this.store.listeners.size).toBe(0);
  }

  #switch(scope: string, method: "switch" | "initialize"): void {
    if (this.database.isReady.value) this.#opened.add(this.#generation);
    for (const each of this.store.held) this.#abandoned.add(each);
    this.account = scope;
    this.#generation += 1;
    const generation = this.#generation;
    const switched = method === "switch" ? this.database.switchScope(scope) : this.database.initialize(scope);
    if (this.database.isReady.value) this.problems.push("ready right after a switch");
    switched.then(
      () => {
        const isLatest = generation === this.#generation || this.#opened.has(generation);
        if (!isLatest) this.problems.push("a switch was fulfilled although a later one was called");
      },
      (error: unknown) => {
        const isOvertaken = error instanceof ScopeSwitchedError;
        if (isOvertaken && generation === this.#generation) this.problems.push("the last switch was overtaken");
      },
    );
  }

  #call(ask: () => Promise<unknown>): void {
    const generation = this.#generation;
    const wasReady = this.database.isReady.value;
    const asked = ask();
    const held = wasReady ? this.store.held.at(-1) : undefined;
    asked.then(
      (result) => {
        if (this.#abandoned.has(held)) this.problems.push("a call was fulfilled after its account was left");
        if (!wasReady) this.problems.push("a call before isReady was fulfilled");
        if (generation === this.#generation) this.#checkShown(result as Message[] | undefined, "in a result");
      },
      (error: unknown) => {
        if (wasReady && error instanceof NotReadyError) this.problems.push("a call was refused while ready");
      },
    );
  }

  #checkShown(messages: Message[] | undefined, when: string): void {
    for (const { content } of messages ?? []) {
      if (!content.startsWith(`${this.account}:`)) this.problems.push(`${content} in ${this.account} ${when}`);
    }
  }
}

test("data of one account is never shown in another", { timeout: 300_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(step, pause), { maxLength: 40 }), async (steps) => {
      const application = new Application();
      for (const [each, turns] of steps) {
        application.act(each);
        if (turns === undefined) await settled();
        else for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
        application.check(`some time after ${each.do}`);
      }
      await application.finish();
      expect(application.problems).toEqual([]);
    }),
    { numRuns: RUNS, seed: SEED },
  );
});
