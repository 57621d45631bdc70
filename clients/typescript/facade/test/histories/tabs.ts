/** Histories of two tabs, each of which opens one account or another. */

import { isDeepStrictEqual } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import * as fc from "fast-check";
import { expect } from "vitest";
import { mayChange, type OperationName, readsOf, type Store, type StoreEvent } from "backscroll/language";
import { histories, POOLS } from "./arbitraries.js";
import { Browser } from "./indexeddb.js";
import { Player, send, type Step } from "./steps.js";

const DEADLINE_MS = 10_000;
const PAUSE_MS = 5;
const ACCOUNTS = ["ada", "bob"] as const;

type Account = (typeof ACCOUNTS)[number];

/** Which tab plays a step; with `account` it opens that one before. */
export interface TabStep {
  tab: 0 | 1;
  account?: Account;
  step: Step;
}

const places = fc.record({
  tab: fc.constantFrom(0 as const, 1 as const),
  account: fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, fc.constantFrom(...ACCOUNTS)),
});

/** Steps of two tabs, which now and then open another account. */
export const tabHistories: fc.Arbitrary<TabStep[]> = histories().chain(({ steps }) =>
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

/** Tabs that have the same databases. */
export interface Tabs {
  /** A tab in which an account is open. */
  openTab(account: string): Promise<Store>;
  /** Close the tabs, and remove their databases. */
  close(): Promise<void>;
}

/** Plays a history step by step in two tabs, and in one tab for each account, which has to answer the same. */
export async function playInTurns(opened: Tabs, steps: readonly TabStep[]): Promise<void> {
  const reference = new Browser();
  try {
    const tabs = await openTwo(opened);
    const pairs = new Map<Account, { player: Player; other: Store; otherPlayer: Player }>();
    for (const account of ACCOUNTS) {
      const other = await reference.openTab(account);
      await tabs[0].open(account);
      const [player, otherPlayer] = [await Player.at(tabs[0].store, POOLS), await Player.at(other, POOLS)];
      pairs.set(account, { player, other, otherPlayer });
    }
    for (const { tab, account, step } of steps) {
      if (account !== undefined) await tabs[tab].open(account);
      const pair = pairs.get(tabs[tab].account);
      if (pair === undefined) continue;
      const written = marked(step, tabs[tab].account);
      const outcome = await pair.player.play(tabs[tab].store, written);
      expect(outcome).toEqual(await pair.otherPlayer.play(pair.other, written));
    }
    await waitUntilUpToDate(tabs);
  } finally {
    await Promise.all([opened.close(), reference.close()]);
  }
}

/** Plays the steps of each tab in their order, while the other plays its own; then both have to show the same. */
export async function playAtOnce(opened: Tabs, steps: readonly TabStep[]): Promise<void> {
  try {
    const tabs = await openTwo(opened);
    const playAll = async (tab: Tab, own: readonly TabStep[]): Promise<void> => {
      const player = await Player.at(tab.store, POOLS);
      for (const { account, step } of own) {
        if (account !== undefined) await tab.open(account);
        await player.play(tab.store, marked(step, tab.account));
      }
    };
    const own = (index: number): TabStep[] => steps.filter(({ tab }) => tab === index);
    await Promise.all(tabs.map((tab, index) => playAll(tab, own(index))));
    await waitUntilUpToDate(tabs);
    for (const account of ACCOUNTS) {
      for (const tab of tabs) await tab.open(account);
      const readAll: Step = { type: "read-all", payload: {} };
      const player = await Player.at(tabs[0].store, POOLS);
      const [one, other] = await Promise.all(tabs.map(({ store }) => player.play(store, readAll)));
      expect(one).toEqual(other);
    }
  } finally {
    await opened.close();
  }
}

async function openTwo(opened: Tabs): Promise<[Tab, Tab]> {
  return [new Tab(await opened.openTab("ada"), "ada"), new Tab(await opened.openTab("ada"), "ada")];
}

async function waitUntilUpToDate(tabs: readonly Tab[]): Promise<void> {
  const deadline = performance.now() + DEADLINE_MS;
  for (const [index, tab] of tabs.entries()) {
    while (!(await tab.isUpToDate())) {
      if (performance.now() > deadline) throw new Error(`tab ${String(index)} does not show what is stored`);
      await sleep(PAUSE_MS);
    }
  }
}
