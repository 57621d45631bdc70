/** What a store does besides the operations: accounts, order, refusals, events. */

import assert from "node:assert/strict";
import type { OperationName } from "backscroll/language";
import { openBrowserStore } from "../src/index.js";
import { done } from "./dump.js";
import { call, eventsOf, messageOf, newScope, opened, outcome, test } from "./support.js";

test("requests take effect in the order of the calls", async (t) => {
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

test("a payload that changes after the call is as it was", async (t) => {
  const store = await opened(t);
  const message = { ...messageOf(1), metadata: { text: "before" } };
  const saved = store.command({ type: "save-message", payload: { message } });
  message.metadata.text = "after";
  await saved;
  const found = await store.query({ type: "get-message-by-id", payload: { messageId: "m1" } });
  assert.deepEqual(found?.metadata, { text: "before" });
});

test("an account sees nothing of another", async (t) => {
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

test("after a switch nothing is told of the old account", async (t) => {
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
  assert.deepEqual(await waiting, { code: "no-reply", path: undefined });
});

test("without an account requests are refused", async () => {
  const store = openBrowserStore();
  const refused = outcome(() => store.query({ type: "get-messages", payload: { roomId: "r1" } }));
  assert.deepEqual(await refused, { code: "forbidden", path: undefined });
});

test("names of accounts are text of 1 to 128 bytes", async () => {
  const store = openBrowserStore();
  for (const scope of ["", "é".repeat(65), "\ud83d", 5 as never]) {
    assert.deepEqual(await outcome(() => store.switchScope(scope)), { code: "invalid", path: "$.payload.scope" });
  }
});

test("what the store does not do is refused by name", async (t) => {
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

test("a command is no query, and a query no command", async (t) => {
  const store = await opened(t);
  const refused = { code: "invalid", path: "$.type" };
  const payload = { message: messageOf(1) };
  assert.deepEqual(await outcome(() => store.query({ type: "save-message", payload })), refused);
  const page = { roomId: "r1" };
  assert.deepEqual(await outcome(() => store.command({ type: "get-messages", payload: page })), refused);
});

test("after a switch that failed no account is open", async (t) => {
  const store = await opened(t);
  const open = t.mock.method(indexedDB, "open", () => {
    throw new DOMException("denied", "SecurityError");
  });
  const scope = newScope();
  const switched = outcome(() => store.switchScope(scope));
  const save = { type: "save-message", payload: { message: messageOf(1) } } as const;
  const between = outcome(() => store.command(save));
  assert.deepEqual(await switched, { code: "storage", path: undefined });
  assert.deepEqual(await between, { code: "forbidden", path: undefined });
  open.mock.restore();
  assert.deepEqual(await outcome(() => store.command(save)), { code: "forbidden", path: undefined });
  await store.switchScope(scope);
  await store.command(save);
});

test("a name that is refused leaves the account open", async (t) => {
  const store = await opened(t);
  assert.deepEqual(await outcome(() => store.switchScope("")), { code: "invalid", path: "$.payload.scope" });
  assert.deepEqual(await store.query({ type: "get-all-rooms", payload: {} }), []);
});

test("switches at once are all fulfilled, in their order", async (t) => {
  const scopes = [newScope(), newScope(), newScope()];
  const store = await opened(t);
  const happened: string[] = [];
  const switches = scopes.map(async (scope, at) => {
    const switched = store.switchScope(scope);
    const saved = store.command({ type: "save-message", payload: { message: messageOf(at) } });
    void saved.then(() => happened.push(`saved ${String(at)}`));
    await switched;
    happened.push(`switched ${String(at)}`);
    await saved;
  });
  await Promise.all(switches);
  assert.deepEqual(happened, ["switched 0", "saved 0", "switched 1", "saved 1", "switched 2", "saved 2"]);
  for (const [at, scope] of scopes.entries()) {
    await store.switchScope(scope);
    const found = await store.query({ type: "get-messages", payload: { roomId: "r1" } });
    assert.deepEqual(
      found.map(({ id }) => id),
      [`m${String(at)}`],
    );
  }
});

test("an account that is opened again is as it was", async (t) => {
  const scope = newScope();
  const store = await opened(t, scope);
  const events = eventsOf(store);
  const saved = store.command({ type: "save-message", payload: { message: messageOf(1) } });
  await store.switchScope(scope);
  await saved;
  await store.command({ type: "save-message", payload: { message: messageOf(2) } });
  const found = await store.query({ type: "get-messages", payload: { roomId: "r1" } });
  assert.equal(found.length, 2);
  assert.deepEqual(
    events.flatMap((each) => (each.type === "changed" ? each.changes.map(({ seq }) => seq) : [])),
    [2],
  );
});

test("a switch does not wait for ever for requests", async (t) => {
  const scope = newScope();
  const store = await opened(t, scope);
  const raw = await done(indexedDB.open(`backscroll:${scope}`));
  const objects = raw.transaction("messages", "readwrite").objectStore("messages");
  let isHeld = true;
  const hold = (): void => {
    if (isHeld) objects.count().onsuccess = hold;
  };
  hold();
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const saved = outcome(() => store.command({ type: "save-message", payload: { message: messageOf(1) } }));
  let isSwitched = false;
  const switched = store.switchScope(newScope()).then(() => (isSwitched = true));
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert(!isSwitched);
  t.mock.timers.tick(30_000);
  assert.deepEqual(await saved, { code: "no-reply", path: undefined });
  await switched;
  isHeld = false;
  raw.close();
});

test("a listener that throws does not harm a command", async (t) => {
  const store = await opened(t);
  const uncaught: unknown[] = [];
  t.mock.method(globalThis, "queueMicrotask", (act: () => void) => {
    try {
      act();
    } catch (error) {
      uncaught.push(error);
    }
  });
  const problem = new Error("of the application");
  store.subscribe(() => {
    throw problem;
  });
  const events = eventsOf(store);
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  assert.deepEqual([events.length, uncaught], [1, [problem]]);
});

test("listeners may come and go while they are told", async (t) => {
  const store = await opened(t);
  let told = 0;
  let leave = (): void => undefined;
  const again = (): void => {
    told += 1;
    leave();
    leave = store.subscribe(again);
  };
  leave = store.subscribe(again);
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  assert.equal(told, 1);
});

test("the browser is asked once to keep the data", async (t) => {
  let asked = 0;
  const storage = { persist: () => Promise.reject(new Error(`no ${String((asked += 1))}`)) };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { storage }, configurable: true });
  try {
    const store = await opened(t);
    await store.switchScope(newScope());
    assert.equal(asked, 1);
    await opened(t, newScope(), { persist: false });
    assert.equal(asked, 1);
  } finally {
    if (before) Object.defineProperty(globalThis, "navigator", before);
    else Reflect.deleteProperty(globalThis, "navigator");
  }
});

test("a command that fails has no effect", async (t) => {
  const store = await opened(t);
  const events = eventsOf(store);
  const payload = { messageId: "m1", updates: { content: "new" } };
  assert.equal(await codeOf(store.command({ type: "update-message", payload })), "not-found");
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  const [event] = events;
  assert(event?.type === "changed");
  assert.deepEqual([events.length, event.changes[0]?.seq], [1, 1]);
});

test("listeners are told once each, until they leave", async (t) => {
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
