/** What an application can attach: a logger, and the trace context of its spans. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { Client, type Logger } from "../src/index.js";
import { FakeDaemon, messageOf, ok, refusal, temporaryDirectory, waitUntil } from "./support.js";

/** A logger that keeps its lines. */
function recorder(): { lines: string[]; details: object[]; logger: Logger } {
  const lines: string[] = [];
  const details: object[] = [];
  const write = (level: string) => (message: string, more: object) => {
    lines.push(`${level} ${message}`);
    details.push(more);
  };
  return { lines, details, logger: { debug: write("debug"), warn: write("warn") } };
}

void test("the logger gets outcomes and connections, and nothing of what people wrote", async (t) => {
  const path = join(temporaryDirectory(t), "fake.sock");
  const fake = await FakeDaemon.start(t, path, (request) => {
    if (request.type === "save-user") return refusal(request, "busy");
    return request.type === "get-room" ? refusal(request, "not-found", "caller", false) : ok(request, null, 7);
  });
  const { lines, details, logger } = recorder();
  using client = new Client({ endpoint: `ipc://${path}`, logger });
  await client.saveMessage({ message: messageOf(1, "a secret") }, { requestId: "first" });
  await assert.rejects(client.getRoom({ roomId: "r1" }));
  await assert.rejects(
    client.saveUser({ user: { id: "ada", oderId: "ada", username: "ada", displayName: "a secret" } }),
  );
  fake.cut();
  await waitUntil(() => lines.length === 5);
  assert.deepEqual(lines.slice(0, 4), [
    "debug connected",
    "debug save-message: ok",
    "debug get-room: not-found",
    "warn save-user: busy: refused: busy",
  ]);
  assert.match(lines[4] ?? "", /^warn not connected: no daemon answers at ipc:/);
  const { ms, ...rest } = details[1] as { ms: number };
  assert.deepEqual([rest, ms >= 0], [{ id: "first", seq: 7 }, true]);
  assert(!JSON.stringify([lines, details]).includes("a secret"));
  client.close();
  assert.equal(lines.length, 5);
});

void test("a request has its own trace context, or else the client's at that moment", async (t) => {
  const path = join(temporaryDirectory(t), "fake.sock");
  const fake = await FakeDaemon.start(t, path, (request) => ok(request, { pong: true }));
  const span: { context?: string } = {};
  using client = new Client({ endpoint: `ipc://${path}`, traceparent: () => span.context });
  await client.ping();
  span.context = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  await client.ping();
  await client.ping({}, { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" });
  assert.deepEqual(
    fake.bodies.map((body) => (JSON.parse(body) as { traceparent?: string }).traceparent?.slice(3, 7)),
    [undefined, "4bf9", "0af7"],
  );
});
