/** Databases of earlier and later versions, and what happens to one under a store. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { openBrowserStore } from "../src/index.js";
import { VERSION } from "../src/migrations.js";
import { type Dump, done, dump, load } from "./dump.js";
import { eventsOf, messageOf, newScope, opened, outcome, waitUntil, test } from "./support.js";

const FIXTURES = new URL("../../test/fixtures/", import.meta.url);

function fixture(name: string): Dump {
  return JSON.parse(readFileSync(new URL(name, FIXTURES), "utf8")) as Dump;
}

for (let version = 1; version <= VERSION; version++) {
  test(`a database of version ${String(version)} is read as it was`, async (t) => {
    const scope = newScope();
    await load(`backscroll:${scope}`, fixture(`version-${String(version)}.json`));
    const store = await opened(t, scope);
    const { messages } = await store.query({ type: "get-message-page", payload: { roomId: "r1", attachments: true } });
    assert.deepEqual(
      messages.map(({ id, content, reactions, attachments }) => [id, content, reactions?.length, attachments?.length]),
      [
        ["ﬀ", "text of ﬀ", 0, 0],
        ["😀", "text of 😀", 0, 0],
        ["m1", "text of m1", 1, 1],
        ["deleted", "[Message deleted]", 0, 0],
        ["expired", "[Message deleted]", 0, 0],
        ["expires", "text of expires", 0, 0],
      ],
    );
    const late = { message: { ...messageOf(1), id: "gone", roomId: "r2" } };
    await store.command({ type: "save-message", payload: late });
    assert.deepEqual(await store.query({ type: "get-messages", payload: { roomId: "r2" } }), []);
    const later = await store.query({ type: "get-reactions-for-message", payload: { messageId: "later" } });
    assert.equal(later.length, 1);
    const user = await store.query({ type: "get-current-user", payload: {} });
    assert.equal(user?.pubkey, "k1");
    const users = await store.query({ type: "get-users-by-room", payload: { roomId: "r1" } });
    assert.deepEqual(
      users.map(({ username }) => username),
      ["ada", "bob"],
    );
    assert(await store.query({ type: "is-user-banned", payload: { roomId: "r1", userId: "u9" } }));
    const { changes } = await store.query({ type: "get-changes", payload: { nouns: ["room"] } });
    assert.equal(changes.length, 1);
  });
}

test("a migrated database has the same stores as a new one", async (t) => {
  const [migrated, made] = [newScope(), newScope()];
  await load(`backscroll:${migrated}`, fixture("version-1.json"));
  await (await opened(t, migrated)).close();
  await (await opened(t, made)).close();
  const [one, other] = [await dump(`backscroll:${migrated}`), await dump(`backscroll:${made}`)];
  const stores = ({ stores: all }: Dump): unknown =>
    Object.entries(all).map(([name, { keyPath, indexes }]) => [name, keyPath, indexes]);
  assert.deepEqual(stores(one), stores(other));
  assert.equal(one.version, VERSION);
});

test("a database of a later version is left as it is", async (t) => {
  const scope = newScope();
  await load(`backscroll:${scope}`, { version: VERSION + 1, stores: {} });
  await assert.rejects(opened(t, scope), { code: "storage", message: /later version of this application: reload/ });
  assert.equal((await dump(`backscroll:${scope}`)).version, VERSION + 1);
});

test("an older tab closes its database for a later one", async (t) => {
  const scope = newScope();
  const store = await opened(t, scope);
  const events = eventsOf(store);
  const later = await done(indexedDB.open(`backscroll:${scope}`, VERSION + 1));
  later.close();
  assert.deepEqual(
    events.map((each) => each.type === "disconnected" && each.problem.code),
    ["unavailable"],
  );
  const save = store.command({ type: "save-message", payload: { message: messageOf(1) } });
  await assert.rejects(save, { code: "unavailable", message: /reload this page/ });
});

test("a tab that keeps an older version open is not waited for", async (t) => {
  const scope = newScope();
  const held = await done(indexedDB.open(`backscroll:${scope}`, 1)); // without onversionchange
  await assert.rejects(opened(t, scope, { blockedMs: 20 }), { code: "unavailable", message: /another tab/ });
  held.close();
  await done(indexedDB.deleteDatabase(`backscroll:${scope}`));
});

test("a database that is deleted is made anew", async (t) => {
  const scope = newScope();
  const store = await opened(t, scope);
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  const { cursor } = await store.query({ type: "get-changes", payload: { after: "now" } });
  const events = eventsOf(store);
  await done(indexedDB.deleteDatabase(`backscroll:${scope}`));
  await waitUntil(() => events.length > 0);
  assert.deepEqual(events, [{ type: "gap" }]);
  assert.deepEqual(await store.query({ type: "get-messages", payload: { roomId: "r1" } }), []);
  const page = await store.query({ type: "get-changes", payload: { after: cursor } });
  assert.equal(page.gap, true);
});

test("a database that is deleted as it is opened again", async (t) => {
  const scope = newScope();
  const [store, other] = [await opened(t, scope), await opened(t, scope)];
  const events = eventsOf(store);
  for (let number = 1; number <= 12; number++) {
    await Promise.all([1, 2, 3].map(() => done(indexedDB.deleteDatabase(`backscroll:${scope}`))));
    for (let turn = 0; turn < number; turn++) await new Promise((resolve) => setImmediate(resolve));
  }
  await waitUntil(async () => {
    const saved = other.command({ type: "save-message", payload: { message: messageOf(1) } });
    return "result" in ((await outcome(() => saved)) as object);
  });
  await waitUntil(() => events.at(-1)?.type === "changed");
  await Promise.all([store.close(), other.close()]);
  await done(indexedDB.deleteDatabase(`backscroll:${scope}`)); // no connection is left open
});

test("an open that another tab's request holds up ends", async (t) => {
  const scope = newScope();
  const held = await done(indexedDB.open(`backscroll:${scope}`, 1)); // without onversionchange
  const deleting = done(indexedDB.deleteDatabase(`backscroll:${scope}`));
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const store = openBrowserStore();
  const switched = outcome(() => store.switchScope(scope)); // is behind the deletion, and told of nothing
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  t.mock.timers.tick(30_000);
  assert.deepEqual(await switched, { code: "unavailable", path: undefined });
  held.close();
  await deleting;
  t.mock.timers.reset();
  await done(indexedDB.deleteDatabase(`backscroll:${scope}`)); // what was opened too late was closed
});

test("a command says why its transaction was aborted", async (t) => {
  const store = await opened(t);
  await store.command({ type: "save-message", payload: { message: messageOf(1) } });
  const transaction = Reflect.get<IDBDatabase, "transaction">(IDBDatabase.prototype, "transaction");
  t.mock.method(IDBDatabase.prototype, "transaction", function (this: IDBDatabase, ...args: [string[]]) {
    const tx = transaction.apply(this, args);
    setImmediate(() => {
      (tx as unknown as { _abort: (name: string) => void })._abort("QuotaExceededError"); // of fake-indexeddb
    });
    return tx;
  });
  const save = store.command({ type: "save-message", payload: { message: messageOf(2) } });
  await assert.rejects(save, { code: "storage", retryable: true, message: /no more room/ });
});

test("without IndexedDB an account is not opened", async (t) => {
  const factory = globalThis.indexedDB;
  Reflect.deleteProperty(globalThis, "indexedDB");
  try {
    await assert.rejects(opened(t), { code: "storage", message: /no IndexedDB/ });
  } finally {
    Object.defineProperty(globalThis, "indexedDB", { value: factory, configurable: true, writable: true });
  }
});

test("a browser that refuses to open is a storage error", async (t) => {
  t.mock.method(indexedDB, "open", () => {
    throw new DOMException("denied", "SecurityError");
  });
  assert.deepEqual(await outcome(() => opened(t)), { code: "storage", path: undefined });
});
