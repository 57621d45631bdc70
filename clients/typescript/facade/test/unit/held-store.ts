/** A store that holds every reply back until the test says how it goes on. */

import type { OperationName, Results, Store, StoreEvent, StoreRequest } from "backscroll/language";

/** One call without an outcome. */
export interface Held {
  /** `switch-scope`, or the operation. */
  type: string;
  /** The account that the call is for: its result shows it. */
  scope: string | undefined;
  fulfil(): void;
  reject(error: Error): void;
}

/** Queries are answered with one message whose content is the account and how many commands it had when called. */
export class HeldStore implements Store {
  readonly held: Held[] = [];
  /** How many calls there were of each type. */
  readonly calls = new Map<string, number>();
  readonly listeners = new Set<(event: StoreEvent) => void>();
  subscriptions = 0;
  #scope: string | undefined;
  #commands = new Map<string, number>();

  switchScope(scope: string): Promise<void> {
    this.#scope = scope;
    return this.#hold("switch-scope", scope, undefined);
  }

  command<Name extends OperationName>({ type }: StoreRequest<Name>): Promise<Results[Name]> {
    const scope = this.#scope ?? "";
    if (type !== "initialize") this.#commands.set(scope, (this.#commands.get(scope) ?? 0) + 1);
    return this.#hold(type, scope, null as Results[Name]);
  }

  query<Name extends OperationName>({ type }: StoreRequest<Name>): Promise<Results[Name]> {
    const scope = this.#scope ?? "";
    const content = `${scope}:${String(this.#commands.get(scope) ?? 0)}`;
    const message = { id: "m1", roomId: "home", content, timestamp: 1, isDeleted: false };
    return this.#hold(type, scope, [message] as unknown as Results[Name]);
  }

  subscribe(listener: (event: StoreEvent) => void): () => void {
    this.subscriptions += 1;
    this.listeners.add(listener);
    return () => {
      this.listeners.delete(listener);
    };
  }

  emit(event: StoreEvent): void {
    for (const listener of this.listeners) listener(event);
  }

  /** Tell that a message of a room changed. */
  change(roomId: string): void {
    const change = { noun: "message", id: "m1", roomId, seq: 1, at: 1, requestId: "r" } as const;
    this.emit({ type: "changed", changes: [change] });
  }

  count(type: string): number {
    return this.calls.get(type) ?? 0;
  }

  /** Fulfil what is held, until nothing is. */
  async flow(): Promise<void> {
    for (;;) {
      await settled();
      if (this.held.length === 0) return;
      this.held[0]?.fulfil();
    }
  }

  /** Fulfil the oldest call of a type. */
  async fulfil(type: string): Promise<void> {
    this.#find(type).fulfil();
    await settled();
  }

  async reject(type: string, error: Error): Promise<void> {
    this.#find(type).reject(error);
    await settled();
  }

  #find(type: string): Held {
    const found = this.held.find((each) => each.type === type);
    if (found === undefined)
      throw new Error(`no ${type} is held; held are ${this.held.map((each) => each.type).join()}`);
    return found;
  }

  #hold<Result>(type: string, scope: string, result: Result): Promise<Result> {
    this.calls.set(type, this.count(type) + 1);
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        this.held.splice(this.held.indexOf(held), 1);
        act();
      };
      const held: Held = {
        type,
        scope,
        fulfil: () => {
          settle(() => {
            resolve(result);
          });
        },
        reject: (error) => {
          settle(() => {
            if (type === "switch-scope" && this.#scope === scope) this.#scope = undefined;
            reject(error);
          });
        },
      };
      this.held.push(held);
    });
  }
}

/** `setImmediate` of Node, or what browsers have; taken before a test sets up timers of its own. */
const afterPromises: (act: () => void) => void = "setImmediate" in globalThis ? setImmediate : setTimeout;

/** All promises that can be settled are, and their followers were called. */
export function settled(): Promise<void> {
  return new Promise((resolve) => {
    afterPromises(resolve);
  });
}
