/** Following what changes, over restarts and other histories. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { type Changes, Client, FeedGapError, type ItemChange, UnavailableError } from "../src/index.js";
import { Daemon, FakeDaemon, LONG_MS, messageOf, ok, temporaryDirectory, waitUntil } from "./support.js";

async function taken(iterator: Changes, count: number): Promise<ItemChange[]> {
  const items: ItemChange[] = [];
  while (items.length < count) {
    const next = await iterator.next();
    if (next.done) break;
    items.push(next.value);
  }
  return items;
}

void test("changes come in order, from the beginning, and over restarts", async (t) => {
  const daemon = await Daemon.start(t);
  const client = new Client({ dataDir: daemon.dataDir, timeoutMs: LONG_MS });
  for (const number of [1, 2, 3]) await client.saveMessage({ message: messageOf(number) });
  const changes = client.changes({ nouns: ["message"], limit: 2 });
  assert.deepEqual(
    (await taken(changes, 3)).map(({ id }) => id),
    ["m1", "m2", "m3"],
  );
  assert.equal(changes.atPageEnd, true);

  const next = taken(changes, 2);
  for (const number of [4, 5]) {
    await daemon.restart();
    await client.saveMessage({ message: messageOf(number) });
  }
  const [fourth, fifth] = await next;
  assert(fourth?.noun === "message" && fifth?.noun === "message");
  assert.deepEqual([fourth.value?.content, fifth.value?.content, fifth.seq], ["4", "5", 5]);

  const again = client.changes({ after: changes.cursor });
  const deleted = taken(again, 1);
  await client.deleteRoom({ roomId: "r1" });
  assert.deepEqual(
    (await deleted).map(({ gone, id, roomId }) => [gone, id, roomId]),
    [[true, undefined, "r1"]],
  );
  await again.return();
  client.close();
});

void test("a cursor of another history is a gap", async (t) => {
  const daemon = await Daemon.start(t);
  const client = new Client({ dataDir: daemon.dataDir });
  for (const number of [1, 2]) await client.saveMessage({ message: messageOf(number) });
  const changes = client.changes();
  await taken(changes, 2);
  await client.deleteScope();
  await client.saveMessage({ message: messageOf(3) });
  await assert.rejects(taken(changes, 1), (error) => {
    assert(error instanceof FeedGapError);
    assert.equal(typeof error.cursor, "string");
    return true;
  });
  assert.equal((await changes.next()).done, true);
  client.close();
});

void test("a watched query gives each new result, over restarts and gaps", async (t) => {
  const daemon = await Daemon.start(t);
  const [client, other] = [1, 2].map(() => new Client({ dataDir: daemon.dataDir, timeoutMs: LONG_MS }));
  assert(client && other);
  const seen: [number, number, boolean][] = [];
  const watching = (async () => {
    for await (const { result, seq, gap } of client.watch("get-messages", { roomId: "r1" })) {
      seen.push([result.length, seq, gap]);
    }
  })();
  const sees = (length: number): Promise<void> => waitUntil(() => seen.at(-1)?.[0] === length);
  await sees(0);
  await other.saveMessage({ message: messageOf(1) });
  await sees(1);
  await daemon.restart();
  await other.saveMessage({ message: messageOf(2) });
  await sees(2);
  await other.saveMessage({ message: { ...messageOf(3), roomId: "r2" } }); // changes another room
  await other.deleteScope();
  await sees(0);
  assert.equal(seen.at(-1)?.[2], true);
  assert.deepEqual(seen.slice(0, 3), [
    [0, 0, false],
    [1, 1, false],
    [2, 2, false],
  ]);
  client.close();
  await watching;
  other.close();
});

void test("an iterator ends when it is told to", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const changes = client.changes({ after: "now" });
  const waiting = changes.next();
  await waitUntil(() => changes.cursor !== undefined);
  await changes.return();
  assert.equal((await waiting).done, true);

  const abort = new AbortController();
  const aborted = client.changes({ after: "now", signal: abort.signal }).next();
  setImmediate(() => {
    abort.abort();
  });
  await assert.rejects(aborted, { name: "AbortError" });

  const closed = client.watch("get-user", { userId: "u" });
  assert.equal((await closed.next()).value?.result, null);
  const ended = closed.next();
  client.close();
  assert.equal((await ended).done, true);
});

void test("without a daemon at the start it throws", async (t) => {
  const client = new Client({ dataDir: temporaryDirectory(t), timeoutMs: 50 });
  await assert.rejects(client.changes().next(), UnavailableError);
  await assert.rejects(client.watch("get-user", { userId: "u" }).next(), UnavailableError);
  // @ts-expect-error -- it is no query
  await assert.rejects(client.watch("ping", {}).next(), /watch takes a query about stored items, not ping/);
  // @ts-expect-error -- there is none of this name
  await assert.rejects(client.watch("get-moon", {}).next(), /watch takes a query about stored items, not get-moon/);
  client.close();
});

void test("a change of a later noun keeps what it has", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  await FakeDaemon.start(t, path, (request) => {
    if (request.type === "ping") return ok(request, { pong: true });
    const change = { seq: 1, at: 1, requestId: "x", noun: "moon", id: "m", value: { phase: "full" } };
    return ok(request, { changes: [change], cursor: "c", more: false });
  });
  const client = new Client({ endpoint: `ipc://${path}` });
  const [change] = await taken(client.changes(), 1);
  assert.deepEqual([change?.noun, change?.value], ["moon", { phase: "full" }]);
  client.close();
});
