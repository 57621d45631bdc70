/** Real daemons and lost connections: nothing is lost, nothing takes effect twice, and nothing overtakes what was sent before. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, NotFoundError, SupersededError } from "../src/index.js";
import { Daemon, IS_LONG, LONG_MS, messageOf, Proxy, Relay, waitUntil } from "./support.js";

const MANY = 10_000;
const REFUSED_EVERY = 7;
const SEEDS = IS_LONG ? 100 : 3;
const PAIRS = 20;

/**
 * Save messages without waiting, and among that update one that is never there. Returns the outcomes. A command that was
 * refused, the reply lost, may be superseded when it is sent again.
 */
function pipelined(client: Client, settled = (): void => undefined): Promise<string[]> {
  const outcomes = Array.from({ length: MANY }, async (_, number) => {
    try {
      if (number % REFUSED_EVERY === 0) await client.updateMessage({ messageId: "none", updates: { content: "x" } });
      else await client.saveMessage({ message: messageOf(number) });
      return "saved";
    } catch (error) {
      return error instanceof NotFoundError || error instanceof SupersededError ? "refused" : String(error);
    } finally {
      settled();
    }
  });
  return Promise.all(outcomes);
}

/** Each command has its outcome, and an observer reads in the log that each save took effect once, in the order of the calls. */
async function assertComplete(outcomes: string[], observer: Client): Promise<void> {
  const expected = Array.from({ length: MANY }, (_, number) => (number % REFUSED_EVERY === 0 ? "refused" : "saved"));
  assertSame(outcomes, expected);
  const executed: string[] = [];
  for (let fromSeq = 1; ;) {
    const { entries, lastSeq } = await observer.getLog({ fromSeq, limit: 500 });
    executed.push(...entries.map((each) => (each.payload as { message: { id: string } }).message.id));
    fromSeq += entries.length;
    if (fromSeq > lastSeq) break;
  }
  assertSame(
    executed,
    expected.flatMap((each, number) => (each === "saved" ? [`m${String(number)}`] : [])),
  );
}

/** Like `deepEqual`, but names only the first difference of long lists. */
function assertSame(actual: string[], expected: string[]): void {
  const index = expected.findIndex((each, number) => each !== actual[number]);
  if (index >= 0) assert.fail(`[${String(index)}]: expected ${String(expected[index])}, got ${String(actual[index])}`);
  assert.equal(actual.length, expected.length);
}

for (const [carrier, flags] of [
  ["ipc", []],
  ["tcp", ["--endpoint", "tcp://127.0.0.1:*"]],
] as const) {
  void test(`10,000 commands over three kills take effect once and in order, over ${carrier}`, async (t) => {
    const daemon = await Daemon.start(t, "--batch-requests", "100", ...flags); // so that replies come in small portions
    let connections = 0;
    const client = new Client({
      dataDir: daemon.dataDir,
      timeoutMs: 4 * LONG_MS,
      onConnection: (problem) => (connections += problem ? 0 : 1),
    });
    let settled = 0;
    let kills = 0;
    let restarting: Promise<void> | undefined;
    const outcomes = await pipelined(client, () => {
      settled += 1;
      if (kills === 3 || restarting || settled < (kills + 1) * 0.2 * MANY) return;
      kills += 1;
      restarting = daemon.restart().finally(() => (restarting = undefined));
    });
    assert.deepEqual([kills, connections], [3, 4]);
    await restarting;
    client.close();
    const observer = new Client({ dataDir: daemon.dataDir, timeoutMs: LONG_MS });
    await assertComplete(outcomes, observer);
    observer.close();
  });
}

void test("10,000 commands over bad connections take effect once and in order", async (t) => {
  const daemon = await Daemon.start(t);
  const [endpoint = ""] = daemon.ready.endpoints;
  let faults = 0;
  for (let seed = 0; seed < SEEDS; seed++) {
    await t.test(`seed ${String(seed)}`, async (t) => {
      const scope = `seed-${String(seed)}`;
      const proxy = await Proxy.start(t, endpoint, seed);
      const client = new Client({ endpoint: proxy.endpoint, scope, timeoutMs: 4 * LONG_MS });
      const outcomes = await pipelined(client);
      client.close();
      faults += await proxy.stop();
      const observer = new Client({ endpoint, scope, timeoutMs: LONG_MS });
      await assertComplete(outcomes, observer);
      observer.close();
    });
  }
  assert(faults > SEEDS);
});

/** Blank out `client` and `n`, as many bytes as they are. */
function unnumbered(chunk: Buffer): Buffer {
  const text = chunk.toString("latin1").replace(/,"client":"\w{26}","n":\d+/g, (found) => " ".repeat(found.length));
  return Buffer.from(text, "latin1");
}

for (const isNumbered of [true, false]) {
  const name = isNumbered ? "never wins over a later save" : "would win without its number";
  void test(`an update that was refused unread and is sent again ${name}`, async (t) => {
    const { dataDir, ready } = await Daemon.start(t);
    const relay = await Relay.start(t, ready.endpoints[0] ?? "", isNumbered ? undefined : unnumbered);
    const client = new Client({ endpoint: relay.endpoint, timeoutMs: LONG_MS });
    const observer = new Client({ dataDir, timeoutMs: LONG_MS });
    await client.ping();
    relay.losesReplies = true;
    const numbers = Array.from({ length: PAIRS }, (_, number) => number);
    const calls = numbers.flatMap((number) => [
      client.updateMessage({ messageId: `m${String(number)}`, updates: { content: "old" } }),
      client.saveMessage({ message: messageOf(number, "new") }),
    ]);
    const settled = Promise.allSettled(calls);
    await waitUntil(async () => (await observer.getMessagePage({ roomId: "r1" })).messages.length === PAIRS);
    relay.losesReplies = false;
    relay.cut();
    const outcomes = await settled;
    for (const number of numbers) {
      const [update, save] = [outcomes[2 * number], outcomes[2 * number + 1]];
      assert.equal(save?.status, "fulfilled");
      if (!isNumbered) assert.equal(update?.status, "fulfilled");
      else assert(update?.status === "rejected" && update.reason instanceof SupersededError);
    }
    const { messages } = await observer.getMessagePage({ roomId: "r1" });
    const contents = messages.map(({ content }) => content);
    assert.deepEqual(contents, Array(PAIRS).fill(isNumbered ? "new" : "old"));
    client.close();
    observer.close();
  });
}
