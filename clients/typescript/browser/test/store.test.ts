/** What a store does besides the operations: accounts, order, refusals, events. */

import assert from "node:assert/strict";
import test from "node:test";
import type { OperationName } from "backscroll/language";
import { openBrowserStore } from "../src/index.js";
import { call, eventsOf, messageOf, newScope, opened, outcome } from "./support.js";

void test("requests take effect in the order of the calls", async (t) => {
  const store = await opened(t);
  const answers = [];
  for (let number = 0; number < 20; number++) {
    answers.push(store.command({ type: "save-message", payload: { message: messageOf(number) } }));
    answers.push(store.query({ type: "get-messages", payload: { roomId: "r1" } }));
  }
  const results = await Promise.all(answers);
  assert.deepEqual(
    results.map((each) => each?.length ?? null),
    Array.from({ length: 40 }, (_, at) => (at % 2 === 0 ? null : (at + 1) / 2)),
  );
});

void test("a payload that changes after the call is as it was", async (t) => {
  const store = await opened(t);
  const message = { ...messageOf(1), metadata: { text: "before" } };
  const saved = store.command({ type: "save-message", payload: { message } });
  message.metadata.text = "after";
  await saved;
  const found = await store.query({ type: "get-message-by-id", payload: { messageId: "m1" } });
  assert.deepEqual(found?.metadata, { text: "before" });
});

void test("an account sees nothing of another", async (t) => {
  const [ada, bob] = [newScope(), newScope()];
  const store = await opened(t, ada);
  const saved = store.command({ type: "save-message", payload: { message: messageOf(1) } });
  const switched = store.switchScope(bob);
  const found = store.query({ type: "get-messages", payload: { roomId: "r1" } });
  await Promise.all([saved, switched]);
  assert.deepEqual(await found, []);
  await store.switchScope(ada);
  assert.equal((await store.query({ type: "get-messages", payload: { roomId: "r1" } })).length, 1);
});

void test("after a switch nothing is told of the old account", async (t) => {
  const [ada, bob] = [newScope(), newScope()];
  const [store, other] = [await opened(t, ada), await opened(t, ada)];
  const events = eventsOf(store);
  const { cursor } = await store.query({ type: "get-changes", payload: { after: "now" } });
  const wait = { after: cursor, waitMs: 60_000 };
  const waiting = outcome(() => store.query({ type: "get-changes", payload: wait }));
  await store.switchScope(bob);
  await other.command({ type: "save-message", payload: { message: messageOf(1) } });
  await store.command({ type: "save-message", payload: { message: messageOf(2) } });
  assert.deepEqual(
    events.map((each) => each.type === "changed" && each.changes.map(({ id }) => id)),
    [["m2"]],
  );
  assert.deepEqual(await waiting, { code: "unavailable", path: undefined });
});

void test("without an account requests are refused", async () => {
  const store = openBrowserStore();
  const refused = outcome(() => store.query({ type: "get-messages", payload: { roomId: "r1" } }));
  assert.deepEqual(await refused, { code: "unavailable", path: undefined });
});

void test("names of accounts are text of 1 to 128 bytes", async () => {
  const store = openBrowserStore();
  for (const scope of ["", "é".repeat(65), "\ud83d", 5 as never]) {
    assert.deepEqual(await outcome(() => store.switchScope(scope)), { code: "invalid", path: "$.scope" });
  }
});

void test("what the store does not do is refused by name", async (t) => {
  const store = await opened(t);
  const arrival = { message: messageOf(1), arrival: "any-order" } as const;
  const answer = await outcome(() => store.command({ type: "save-message", payload: arrival }));
  assert.deepEqual(answer, { code: "invalid", path: "$.payload.arrival" });
  for (const type of ["create-message", "batch", "toString", "get-log"] as OperationName[]) {
    const path = "$.type";
    assert.deepEqual(await outcome(() => call(store, type, {} as never)), { code: "unknown-operation", path });
  }
  await assert.rejects(
    store.command({ type: "ping", payload: {} }),
    /the store in the browser has no operation "ping"/,
  );
});

void test("a command is no query, and a query no command", async (t) => {
  const store = await opened(t);
  const refused = { code: "invalid", path: "$.type" };
  const payload = { message: messageOf(1) };
  assert.deepEqual(await outcome(() => store.query({ type: "save-message", payload })), refused);
  const page = { roomId: "r1" };
  assert.deepEqual(await outcome(() => store.command({ type: "get-messages", payload: page })), refused);
});

void test("a payload that is no JSON object is invalid", async (t) => {
  const store = await opened(t);
  const circular: Record<string, unknown> = {};
  circular["metadata"] = circular;
  for (const payload of [[], "text", () => 1, circular, { message: 1n }]) {
    const answer = await outcome(() => store.command({ type: "save-message", payload: payload as never }));
    assert.deepEqual(answer, { code: "invalid", path: "$.payload" });
  }
});

void test("a command that fails has no effect", async (t) => {
  const store = await opened(t);
  const events = eventsOf(store);
  const payload = { messageId: "m1", updates: { content: "new" } };
  assert.equal(await codeOf(store.command({ type: "update-message", payload })), "not-found");
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  const [event] = events;
  assert(event?.type === "changed");
  assert.deepEqual([events.length, event.changes[0]?.seq], [1, 1]);
});

void test("listeners are told once each, until they leave", async (t) => {
  const store = await opened(t);
  const told: string[] = [];
  const listener = (): void => void told.push("one");
  const leave = [store.subscribe(listener), store.subscribe(listener)];
  store.subscribe(() => told.push("other"));
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  leave[0]?.();
  await store.command({ type: "save-message", payload: { message: messageOf(2) } });
  await store.command({ type: "initialize", payload: {} });
  assert.deepEqual(told, ["one", "one", "other", "one", "other"]);
});

async function codeOf(answer: Promise<unknown>): Promise<unknown> {
  return ((await outcome(() => answer)) as { code: string }).code;
}
