/** Two tabs with one account: stores of one process, which share the database and the channel. */

import assert from "node:assert/strict";
import type { StoreEvent } from "backscroll/language";
import type { BrowserStore } from "../src/index.js";
import type { CommandRow } from "../src/layout.js";
import { type Commands, Tail } from "../src/tabs.js";
import { eventsOf, messageOf, newScope, opened, waitUntil, test } from "./support.js";

const save = (store: BrowserStore, number: number): Promise<null> =>
  store.command({ type: "save-message", payload: { message: messageOf(number) } });

/** The ids and numbers of all changes in events. */
function toldBy(events: readonly StoreEvent[]): string[] {
  return events.flatMap((each) =>
    each.type === "changed" ? each.changes.map(({ id, seq }) => `${id ?? ""}:${String(seq)}`) : [each.type],
  );
}

test("each tab is told of the other's commands, in order", async (t) => {
  const scope = newScope();
  const [one, other] = [await opened(t, scope), await opened(t, scope)];
  const [ofOne, ofOther] = [eventsOf(one), eventsOf(other)];
  const all = Array.from({ length: 40 }, (_, at) => save(at % 3 === 0 ? one : other, at));
  await Promise.all(all);
  const expected = all.map((_, at) => `m${String(at)}:${String(at + 1)}`);
  await waitUntil(() => ofOne.length === 40 && ofOther.length === 40);
  for (const events of [ofOne, ofOther]) {
    const told = toldBy(events);
    assert.deepEqual(
      told.map((each) => Number(each.split(":")[1])),
      expected.map((_, at) => at + 1),
    );
    assert.deepEqual(
      told.map((each) => each.split(":")[0]).toSorted(),
      expected.map((_, at) => `m${String(at)}`).toSorted(),
    );
  }
});

test("a tab that missed posts reads what it missed", async (t) => {
  const scope = newScope();
  const silent = await withoutChannel(() => opened(t, scope));
  const [one, other] = [await opened(t, scope), await opened(t, scope)];
  const events = eventsOf(other);
  for (let number = 1; number <= 600; number++) await save(silent, number);
  assert.deepEqual(events, []);
  await save(one, 601);
  await waitUntil(() => toldBy(events).length === 601);
  assert.deepEqual(
    toldBy(events),
    Array.from({ length: 601 }, (_, at) => `m${String(at + 1)}:${String(at + 1)}`),
  );
});

test("a tab that missed more than is kept is told of a gap", async (t) => {
  const scope = newScope();
  const silent = await withoutChannel(() => opened(t, scope));
  const [one, other] = [await opened(t, scope), await opened(t, scope)];
  const events = eventsOf(other);
  const { cursor } = await other.query({ type: "get-changes", payload: { after: "now" } });
  for (let number = 0; number < 10_100; number += 100) {
    const some = Array.from({ length: 100 }, () => silent.command({ type: "initialize", payload: {} }));
    await Promise.all(some);
  }
  await save(one, 1);
  await waitUntil(() => events.length > 0);
  assert.deepEqual(toldBy(events), ["gap"]);
  const page = await other.query({ type: "get-changes", payload: { after: cursor } });
  assert.deepEqual([page.gap, page.changes], [true, []]);
  const again = await other.query({ type: "get-changes", payload: { after: page.cursor } });
  assert.deepEqual([again.gap, again.changes], [undefined, []]);
  await save(one, 2);
  await waitUntil(() => events.length > 1);
  assert.deepEqual(toldBy(events), ["gap", "m2:10102"]);
}, 120_000);

test("a query waits for a commit of another tab", async (t) => {
  const scope = newScope();
  const [one, other] = [await opened(t, scope), await opened(t, scope)];
  const { cursor } = await one.query({ type: "get-changes", payload: { after: "now" } });
  const rooms = ["r1"];
  const waiting = one.query({ type: "get-changes", payload: { after: cursor, waitMs: 60_000, rooms } });
  await other.command({ type: "initialize", payload: {} });
  await save(other, 1);
  const { changes } = await waiting;
  assert.deepEqual(
    changes.map(({ id, seq }) => [id, seq]),
    [["m1", 2]],
  );
});

test("a query waits no longer than it says", async (t) => {
  const store = await opened(t);
  const { cursor } = await store.query({ type: "get-changes", payload: { after: "now" } });
  const page = await store.query({ type: "get-changes", payload: { after: cursor, waitMs: 30 } });
  assert.deepEqual(page, { changes: [], cursor, more: false });
});

test("of too many that wait the oldest is answered", async (t) => {
  const store = await opened(t);
  const { cursor } = await store.query({ type: "get-changes", payload: { after: "now" } });
  const wait = (): Promise<unknown> =>
    store.query({ type: "get-changes", payload: { after: cursor, waitMs: 60_000, values: false } });
  const waiting = Array.from({ length: 65 }, wait);
  assert.deepEqual(await waiting[0], { changes: [], cursor, more: false });
  await save(store, 1);
  const pages = await Promise.all(waiting.slice(1));
  assert.equal(pages.length, 64);
});

test("of many that begin to wait at once 64 wait", async (t) => {
  const store = await opened(t);
  const { cursor } = await store.query({ type: "get-changes", payload: { after: "now" } });
  let answered = 0;
  const waiting = Array.from({ length: 300 }, async () => {
    await store.query({ type: "get-changes", payload: { after: cursor, waitMs: 60_000, values: false } });
    answered += 1;
  });
  await waitUntil(() => answered === 236);
  await save(store, 1);
  await Promise.all(waiting);
});

test("a command that is noted as reading ends is read", async () => {
  const rows = [1, 2].map((seq) => ({ seq, at: 0, requestId: "", changes: [] }));
  const told: number[] = [];
  let head = 1;
  const read = (after: number): Promise<Commands> =>
    Promise.resolve({ rows: rows.slice(after, head), isComplete: true, head });
  for (let turns = 0; turns < 12; turns++) {
    told.length = 0;
    head = 1;
    const tail = new Tail(newScope(), 0, read, { committed: ({ seq }) => told.push(seq), missed: () => told.push(-1) });
    const reading = tail.catchUp();
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    head = 2;
    tail.committed(rows[1] as CommandRow);
    await reading;
    await waitUntil(() => told.length === 2);
    assert.deepEqual(told, [1, 2]);
    tail.close();
  }
});

/** Open a store that posts nothing. */
async function withoutChannel(open: () => Promise<BrowserStore>): Promise<BrowserStore> {
  const channel = globalThis.BroadcastChannel;
  Reflect.deleteProperty(globalThis, "BroadcastChannel");
  try {
    return await open();
  } finally {
    globalThis.BroadcastChannel = channel;
  }
}
