/** Databases of earlier and later versions, and what happens to one under a store. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { VERSION } from "../src/migrations.js";
import { type Dump, done, dump, load } from "./dump.js";
import { eventsOf, messageOf, newScope, opened, outcome, waitUntil } from "./support.js";

const FIXTURES = new URL("../../test/fixtures/", import.meta.url);

function fixture(name: string): Dump {
  return JSON.parse(readFileSync(new URL(name, FIXTURES), "utf8")) as Dump;
}

for (let version = 1; version <= VERSION; version++) {
  void test(`a database of version ${String(version)} is read as it was`, async (t) => {
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

void test("a migrated database has the same stores as a new one", async (t) => {
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

void test("a database of a later version is left as it is", async (t) => {
  const scope = newScope();
  await load(`backscroll:${scope}`, { version: VERSION + 1, stores: {} });
  await assert.rejects(opened(t, scope), { code: "storage", message: /later version of this application: reload/ });
  assert.equal((await dump(`backscroll:${scope}`)).version, VERSION + 1);
});

void test("an older tab closes its database for a later one", async (t) => {
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

void test("a tab that keeps an older version open is not waited for", async (t) => {
  const scope = newScope();
  const held = await done(indexedDB.open(`backscroll:${scope}`, 1)); // without onversionchange
  await assert.rejects(opened(t, scope, { blockedMs: 20 }), { code: "unavailable", message: /another tab/ });
  held.close();
  await done(indexedDB.deleteDatabase(`backscroll:${scope}`));
});

void test("a database that is deleted is made anew", async (t) => {
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

void test("without IndexedDB an account is not opened", async (t) => {
  const factory = globalThis.indexedDB;
  Reflect.deleteProperty(globalThis, "indexedDB");
  try {
    await assert.rejects(opened(t), { code: "storage", message: /no IndexedDB/ });
  } finally {
    Object.defineProperty(globalThis, "indexedDB", { value: factory, configurable: true, writable: true });
  }
});

void test("a browser that refuses to open is a storage error", async (t) => {
  t.mock.method(indexedDB, "open", () => {
    throw new DOMException("denied", "SecurityError");
  });
  assert.deepEqual(await outcome(() => opened(t)), { code: "storage", path: undefined });
});
