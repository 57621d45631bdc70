/** Adopting the database of an application that kept all accounts in one. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { LegacyReport } from "../src/index.js";
import { type Dump, done, dump, load } from "./dump.js";
import { AT, eventsOf, messageOf, newScope, opened, outcome, test } from "./support.js";

const LEGACY = JSON.parse(
  readFileSync(new URL("../../test/fixtures/legacy-version-2.json", import.meta.url), "utf8"),
) as Dump;

/** The legacy fixture under a new name, which belongs to an account. */
async function legacyOf(owner: string, more: Dump["stores"] = {}): Promise<string> {
  const name = newScope();
  const meta = { keyPath: "key", indexes: {}, rows: [{ key: "currentUserId", value: owner }] };
  await load(name, { ...LEGACY, stores: { ...LEGACY.stores, meta, ...more } });
  return name;
}

test("a legacy database is copied for its owner", async (t) => {
  const scope = newScope();
  const databaseName = await legacyOf(scope);
  const before = await dump(databaseName);
  const reports: LegacyReport[] = [];
  const legacy = { databaseName, onProgress: (report: LegacyReport): void => void reports.push(report) };
  const store = await opened(t, scope, { legacy });
  const page = await store.query({ type: "get-message-page", payload: { roomId: "r1", attachments: true } });
  assert.deepEqual(
    page.messages.map(({ id, content, reactions, attachments }) => [
      id,
      content,
      reactions?.length,
      attachments?.length,
    ]),
    [
      ["m1", "hello", 2, 1],
      ["m2", "[Message deleted]", 0, 0],
      ["m3", "edited", 0, 0],
    ],
  );
  const room = await store.query({ type: "get-room", payload: { roomId: "r1" } });
  assert.deepEqual([room?.name, room?.channels?.length, room?.members?.length], ["Home", 2, 1]);
  assert.equal((await store.query({ type: "get-user", payload: { userId: "bob" } }))?.displayName, "Bob");
  assert(await store.query({ type: "is-user-banned", payload: { roomId: "r1", userId: "eve" } }));
  assert.deepEqual(reports.at(-1), {
    isDone: true,
    copied: { users: 2, rooms: 1, messages: 3, reactions: 2, attachments: 1, bans: 1 },
    skipped: { messages: 1, bans: 1 },
  });
  assert.deepEqual(await dump(databaseName), before, "it is left as it is");
});

test("it is copied once, and what is newer stays", async (t) => {
  const scope = newScope();
  const databaseName = await legacyOf(scope);
  const early = await opened(t, scope);
  await early.command({ type: "save-message", payload: { message: { ...messageOf(1), content: "newer" } } });
  await early.close();
  const store = await opened(t, scope, { legacy: { databaseName } });
  const found = await store.query({ type: "get-message-by-id", payload: { messageId: "m1" } });
  assert.equal(found?.content, "newer");
  await store.command({ type: "clear-all-data", payload: {} });
  await store.close();
  const again = await opened(t, scope, { legacy: { databaseName } });
  assert.deepEqual(await again.query({ type: "get-messages", payload: { roomId: "r1" } }), []);
});

test("another account does not get it", async (t) => {
  const databaseName = await legacyOf("ada");
  const store = await opened(t, newScope(), { legacy: { databaseName } });
  assert.deepEqual(await store.query({ type: "get-all-rooms", payload: {} }), []);
});

test("an account is named as the application says", async (t) => {
  const databaseName = await legacyOf("ada");
  const scope = newScope();
  const accountOf = (id: string): string => (id === "ada" ? scope : "nobody");
  const store = await opened(t, scope, { legacy: { databaseName, accountOf } });
  assert.equal((await store.query({ type: "get-all-rooms", payload: {} })).length, 1);
});

test("a legacy database that is not there is not created", async (t) => {
  const databaseName = newScope();
  await opened(t, newScope(), { legacy: { databaseName } });
  const names = await indexedDB.databases();
  assert(!names.some(({ name }) => name === databaseName));
});

test("an interrupted copy goes on where it was", async (t) => {
  const scope = newScope();
  const rows = Array.from({ length: 950 }, (_, at) => ({ ...messageOf(at), id: `n${String(at).padStart(4, "0")}` }));
  const messages = { keyPath: "id", indexes: { roomId: { keyPath: "roomId", unique: false } }, rows };
  const databaseName = await legacyOf(scope, { messages });
  let steps = 0;
  const onProgress = (): void => {
    steps += 1;
    if (steps === 5) throw new Error("the tab is closed");
  };
  await assert.rejects(opened(t, scope, { legacy: { databaseName, onProgress } }), /the tab is closed/);
  const reports: LegacyReport[] = [];
  const record = (report: LegacyReport): void => void reports.push(report);
  const [store] = await Promise.all([
    opened(t, scope, { legacy: { databaseName, onProgress: record } }),
    opened(t, scope, { legacy: { databaseName } }),
  ]);
  assert((reports[0]?.copied["messages"] ?? 0) >= 600);
  const ids = new Set<string>();
  for (let offset = 0; offset < 950; offset += 500) {
    const some = await store.query({ type: "get-messages", payload: { roomId: "r1", limit: 500, offset } });
    for (const { id } of some) ids.add(id);
  }
  assert.equal(ids.size, 950);
  const { changes } = await store.query({ type: "get-changes", payload: { limit: 500, values: false } });
  assert.equal(new Set(changes.map(({ id, noun }) => `${noun} ${id ?? ""}`)).size, changes.length, "none came twice");
  const progress = (await done(
    (await done(indexedDB.open(`backscroll:${scope}`))).transaction("meta").objectStore("meta").get("legacy"),
  )) as { at: unknown; copied: Record<string, number> };
  assert.deepEqual([progress.at, progress.copied["messages"]], [null, 950]);
});

test("a switch ends a copy, which goes on later", async (t) => {
  const scope = newScope();
  const rows = Array.from({ length: 950 }, (_, at) => ({ ...messageOf(at), id: `n${String(at).padStart(4, "0")}` }));
  const messages = { keyPath: "id", indexes: { roomId: { keyPath: "roomId", unique: false } }, rows };
  const databaseName = await legacyOf(scope, { messages });
  let steps = 0;
  let left: Promise<void> | undefined;
  const onProgress = ({ isDone }: LegacyReport): void => {
    steps += 1;
    if (steps === 3) left = store.switchScope(newScope());
    if (isDone) steps = Infinity;
  };
  const store = await opened(t, newScope(), { legacy: { databaseName, onProgress } });
  const events = eventsOf(store);
  const switched = outcome(() => store.switchScope(scope));
  const between = outcome(() => store.query({ type: "get-messages", payload: { roomId: "r1" } }));
  assert.deepEqual(await switched, { code: "no-reply", path: undefined });
  assert.deepEqual(await between, { code: "forbidden", path: undefined });
  await left;
  assert.equal(steps, 3);
  const copied = store.switchScope(scope);
  const page = await store.query({ type: "get-messages", payload: { roomId: "r1", limit: 500, offset: 450 } });
  assert.equal(page.length, 500, "a query waits for the whole copy");
  await copied;
  assert.equal(steps, Infinity);
  assert.deepEqual(events, [], "the copy is no news");
});

test("a row with what JSON does not have is copied as far as it has", async (t) => {
  const scope = newScope();
  const rows = [
    { ...messageOf(1), metadata: { at: new Date(0), tags: new Set(["a"]) } },
    { ...messageOf(2), metadata: { size: 1n } },
  ];
  const databaseName = await legacyOf(scope);
  const database = await done(indexedDB.open(databaseName));
  const objects = database.transaction("messages", "readwrite").objectStore("messages");
  for (const row of rows) await done(objects.put(row));
  database.close();
  const reports: LegacyReport[] = [];
  const onProgress = (report: LegacyReport): void => void reports.push(report);
  const store = await opened(t, scope, { legacy: { databaseName, onProgress } });
  const found = await store.query({ type: "get-message-by-id", payload: { messageId: "m1" } });
  assert.deepEqual(found?.metadata, { at: "1970-01-01T00:00:00.000Z", tags: {} });
  assert.equal(reports.at(-1)?.skipped["messages"], 2);
});

test("a legacy database without a current user is left alone", async (t) => {
  const name = newScope();
  await load(name, { version: 2, stores: { messages: { keyPath: "id", indexes: {}, rows: [{ id: "m1", at: AT }] } } });
  const store = await opened(t, newScope(), { legacy: { databaseName: name } });
  assert.deepEqual(await store.query({ type: "get-all-rooms", payload: {} }), []);
});
