import { isDeepStrictEqual } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { mayChange, type OperationName, readsOf, type Store, type StoreEvent } from "backscroll/language";
import { histories, POOLS } from "./arbitraries.js";
import { SEED } from "./compare.js";
import { Browser } from "./indexeddb.js";
import { Player, send, type Step } from "./steps.js";

const IS_LONG = process.env["LONG"] !== undefined;
const RUNS = IS_LONG ? 1_000 : 40;
const TIMEOUT_MS = IS_LONG ? 3_600_000 : 60_000;
const DEADLINE_MS = 10_000;
const PAUSE_MS = 5;
const ACCOUNTS = ["ada", "bob"] as const;

type Account = (typeof ACCOUNTS)[number];

/** Which tab plays a step; with `account` it opens that one before. */
interface TabStep {
  tab: number;
  account?: Account;
  step: Step;
}

const places = fc.record({
  tab: fc.nat(1),
  account: fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, fc.constantFrom(...ACCOUNTS)),
});

/** Steps of two tabs, which now and then open another account. */
const tabHistories: fc.Arbitrary<TabStep[]> = histories().chain(({ steps }) =>
  fc.array(places, { minLength: steps.length, maxLength: steps.length }).map((drawn) =>
    steps.flatMap((step, index): TabStep[] => {
      const { tab, account } = drawn[index] ?? { tab: 0 };
      return [{ tab, step, ...(account && { account }) }];
    }),
  ),
);

// What was written in which account

/** The fields of text that people see, in which each account leaves its mark. */
const WRITTEN = new Set(["content", "name", "username", "reason", "filename"]);
const markOf = (account: Account): string => `written in ${account}: `;
const otherOf = (account: Account): Account => (account === "ada" ? "bob" : "ada");

function marked<Value>(value: Value, account: Account): Value {
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).map(([name, each]: [string, unknown]) => [
    name,
    WRITTEN.has(name) && typeof each === "string" ? markOf(account) + each : marked(each, account),
  ]);
  return (Array.isArray(value) ? fields.map(([, each]) => each) : Object.fromEntries(fields)) as Value;
}

// What a tab shows

/** Not all attachments: no change tells of those whose message is not stored. */
const WATCHED: readonly [OperationName, object][] = [
  ["get-all-rooms", {}],
  ["get-current-user", {}],
  ...POOLS.rooms.flatMap((roomId): [OperationName, object][] => [
    ["get-messages", { roomId }],
    ["get-users-by-room", { roomId }],
    ["get-bans-for-room", { roomId }],
  ]),
];

/** The results of queries in a tab, which are asked again only when an event says that they may have changed. */
class Tab {
  readonly store: Store;
  account: Account;
  readonly #shown = new Map<string, unknown>();
  #asking: Promise<unknown> = Promise.resolve();

  constructor(store: Store, account: Account) {
    this.store = store;
    this.account = account;
    store.subscribe((event) => {
      this.#handle(event);
    });
    this.#askAgain(() => true);
  }

  async open(account: Account): Promise<void> {
    await this.#asking;
    this.account = account;
    await this.store.switchScope(account);
    this.#shown.clear();
    this.#askAgain(() => true);
  }

  /** Whether what is shown is what the queries answer now, and nothing was written in the other account. */
  async isUpToDate(): Promise<boolean> {
    await this.#asking;
    const asked = new Map<string, unknown>();
    await Promise.all(WATCHED.map((query) => this.#ask(query, asked)));
    expect(JSON.stringify([...asked, ...this.#shown])).not.toContain(markOf(otherOf(this.account)));
    return isDeepStrictEqual(asked, this.#shown);
  }

  #handle(event: StoreEvent): void {
    expect(JSON.stringify(event)).not.toContain(markOf(otherOf(this.account)));
    if (event.type === "gap") this.#askAgain(() => true);
    if (event.type !== "changed") return;
    this.#askAgain(([type, payload]) => event.changes.some((change) => mayChange(readsOf(type, payload), change)));
  }

  #askAgain(isDue: (query: (typeof WATCHED)[number]) => boolean): void {
    const due = WATCHED.filter(isDue).map((query) => this.#ask(query, this.#shown));
    this.#asking = Promise.all([this.#asking, ...due]);
  }

  async #ask([type, payload]: (typeof WATCHED)[number], results: Map<string, unknown>): Promise<void> {
    results.set(`${type} ${JSON.stringify(payload)}`, await send(this.store, type, payload));
  }
}

async function waitUntil(isDone: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  while (!(await isDone())) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(PAUSE_MS);
  }
}

/** Plays a history in two tabs, and the same steps in one tab for each account, which has to answer the same. */
async function play(steps: readonly TabStep[]): Promise<void> {
  const [browser, reference] = [new Browser(), new Browser()];
  try {
    const tabs = await Promise.all([0, 1].map(async () => new Tab(await browser.openTab("ada"), "ada")));
    const alone = await Promise.all(ACCOUNTS.map(async (each) => [each, await reference.openTab(each)] as const));
    const stores = new Map(alone);
    const players = new Map<Account, { ours: Player; theirs: Player }>();
    for (const { tab: index, account, step } of steps) {
      const tab = tabs[index];
      if (tab === undefined) continue;
      if (account !== undefined) await tab.open(account);
      const other = stores.get(tab.account);
      if (other === undefined) continue;
      let pair = players.get(tab.account);
      if (pair === undefined) {
        pair = { ours: await Player.at(tab.store, POOLS), theirs: await Player.at(other, POOLS) };
        players.set(tab.account, pair);
      }
      const written = marked(step, tab.account);
      expect(await pair.ours.play(tab.store, written)).toEqual(await pair.theirs.play(other, written));
    }
    for (const [index, tab] of tabs.entries()) {
      await waitUntil(() => tab.isUpToDate(), `tab ${String(index)} shows what is stored`);
    }
  } finally {
    await browser.close();
    await reference.close();
  }
}

test("two tabs follow one another and answer as one", { timeout: TIMEOUT_MS }, async () => {
  console.log(`SEED=${String(SEED)}`);
  await fc.assert(fc.asyncProperty(tabHistories, play), { seed: SEED, numRuns: RUNS });
});
