/** Sending again, against a daemon that does what a test says; `losses.test.ts` has real ones. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { CallerError, Client, InvalidError, NoReplyError, UnavailableError } from "../src/index.js";
import { Call, PendingCalls } from "../src/pending.js";
import {
  Daemon,
  FakeDaemon,
  GREETING,
  LONG_MS,
  messageOf,
  ok,
  READY,
  type Request,
  refusal,
  temporaryDirectory,
  waitUntil,
} from "./support.js";

void test("at most 1,000 requests are in flight, and the others follow", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  let isHolding = true;
  const fake = await FakeDaemon.start(t, path, (request) => (isHolding ? undefined : ok(request)));
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  const calls = Array.from({ length: 1_500 }, (_, number) => client.saveMessage({ message: messageOf(number) }));
  await waitUntil(() => fake.bodies.length === 1_000);
  isHolding = false;
  fake.cut();
  await Promise.all(calls);
  const sent = fake.requests.map(({ payload }) => (payload["message"] as { id: string }).id);
  assert.deepEqual(
    sent.slice(1_000),
    calls.map((_, number) => `m${String(number)}`),
  );
  client.close();
});

void test("a call of a long queue costs as much as one of a short queue", () => {
  const msPerCall = (length: number): number => {
    const pending = new PendingCalls();
    for (let number = 0; number < length; number += 1) {
      pending.add(new Call("ping", {}, { timeoutMs: LONG_MS }, () => undefined));
    }
    const begun = performance.now();
    for (let call = pending.next(); call !== undefined; call = pending.next()) {
      pending.markSent(call, begun);
      const reply = { id: call.id, ok: true, result: { pong: true }, seq: 1 };
      pending.handleReply(Buffer.from(JSON.stringify(reply)), begun);
    }
    assert.equal(pending.size, 0);
    return (performance.now() - begun) / length;
  };
  // Others may have the processor meanwhile, so the least of several: a queue whose array is moved takes 30 times as long.
  const least = (length: number): number => Math.min(...Array.from({ length: 4 }, () => msPerCall(length)));
  const [short, long] = [least(2_000), least(60_000)];
  assert(long < 8 * short, `${String(short)} ms, ${String(long)} ms`);
});

void test("what waits to be sent is bounded, also in bytes", () => {
  const pending = new PendingCalls();
  const message = { message: messageOf(1, "x".repeat(2 ** 20)) };
  const callOf = (): Call => new Call("save-message", message, { timeoutMs: LONG_MS }, () => undefined);
  const calls = Array.from({ length: 255 }, callOf);
  for (const each of calls) pending.add(each);
  assert.throws(() => {
    pending.add(callOf());
  }, /^BusyError: 255 requests of this client, of \d+ bytes, have no reply yet: wait for some; nothing was sent/);
  const [first] = calls;
  assert(first);
  assert(first.bodyAt(0).includes("xxx"));
  pending.forget(first);
  assert(!first.bodyAt(0).includes("xxx")); // it may stay in the queue, but without its payload
  pending.add(callOf());
});

void test("a retry has the same payload byte for byte, and the deadline that is left", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (fake.connections > 2) return ok(request);
    socket.destroy();
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  const metadata: Record<string, unknown> = { z: 1, a: { y: 2, b: [3] } };
  const saving = client.saveMessage({ message: { ...messageOf(1), metadata } });
  metadata["z"] = 2;
  await saving;
  const withoutDeadline = fake.bodies.map((body) => body.replace(/,"deadlineMs":\d+/, "").replace(/,"level":\d+/, ""));
  assert.equal(fake.bodies.length, 3);
  assert.equal(new Set(withoutDeadline).size, 1);
  assert.match(withoutDeadline[0] ?? "", /"metadata":\{"z":1,"a":\{"y":2,"b":\[3\]\}\}/);
  assert.deepEqual(
    fake.requests.map(({ level }) => level),
    [1, undefined, undefined],
  );
  const deadlines = fake.requests.map(({ deadlineMs }) => deadlineMs);
  assert.deepEqual(
    deadlines,
    [...deadlines].sort((one, other) => other - one),
  );
  client.close();
});

void test("commands are numbered, by each client for itself", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request) =>
    request.type === "get-users" ? refusal(request, "unknown-operation", "caller", false) : ok(request),
  );
  for (const scope of ["ada", "bob"]) {
    const client = new Client({ endpoint: `ipc://${path}`, scope });
    await client.saveMessage({ message: messageOf(1) });
    await client.getUser({ userId: "u" });
    await client.deleteScope();
    await assert.rejects(client.call("get-users"), CallerError); // it is not known here, so it may be a command
    await client.saveMessage({ message: messageOf(2) });
    client.close();
  }
  const sent = fake.requests.map(({ type, n }) => [type, n]);
  const expected = [
    ["save-message", 1],
    ["get-user", undefined],
    ["delete-scope", undefined],
    ["get-users", 2],
    ["save-message", 3],
  ];
  assert.deepEqual(sent, [...expected, ...expected]);
  const clients = fake.requests.map(({ client }) => client);
  assert.deepEqual(
    clients.map((each) => each === undefined),
    fake.requests.map(({ n }) => n === undefined),
  );
  assert.deepEqual(new Set(clients).size, 3);
  assert.match(clients[0] ?? "", /^[0-9A-Z]{26}$/);
  assert.equal(clients[4], clients[0]);
});

void test("a refused retry is sent again while nothing was sent after it", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  let refusals = 0;
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (fake.connections === 1) socket.destroy();
    else if (refusals++ < 2) return refusal(request, "busy");
    else return ok(request);
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  await client.saveMessage({ message: messageOf(1) });
  assert.equal(fake.bodies.length, 4);
  client.close();
});

void test("a refused retry is not sent behind a later request", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (fake.connections === 1 && fake.bodies.length === 2) socket.destroy();
    if (fake.connections === 1) return undefined;
    return (request.payload["message"] as { id: string }).id === "m1" ? refusal(request, "busy") : ok(request);
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  const [first, second] = await Promise.allSettled(
    [1, 2].map((each) => client.saveMessage({ message: messageOf(each) })),
  );
  assert(first?.status === "rejected" && first.reason instanceof NoReplyError);
  assert.match(
    first.reason.message,
    /a retry was refused, and other requests were sent after it: whether .* is unknown/,
  );
  assert.equal(second?.status, "fulfilled");
  assert.equal(fake.bodies.length, 4);
  client.close();
});

void test("a result of another type is an error at once, also of what was sent again", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (fake.connections > 1) return ok(request, "text");
    socket.destroy();
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  await assert.rejects(client.getUser({ userId: "u" }), {
    code: "internal",
    message: "the daemon's result is string, where object or null is declared",
  });
  assert.equal(fake.bodies.length, 2);
  client.close();
});

void test("a daemon that ends each connection is asked less and less often", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (_, socket) => {
    socket.destroy();
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: 700 });
  await assert.rejects(client.ping(), NoReplyError);
  assert(fake.connections > 1 && fake.connections <= 6, String(fake.connections)); // after 25, 50, 100, 200 and 400 ms
  client.close();
});

void test("a daemon that ends its side and reads no more is left at once", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  let connections = 0;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections += 1;
    socket.on("error", () => undefined);
    socket.write(Buffer.concat([GREETING, READY]));
    socket.on("data", (chunk) => {
      if (chunk.length > 1_000) socket.pause().end(); // the beginning of the request
    });
  }).listen(path);
  await once(server, "listening");
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  const saving = client.saveMessage({ message: messageOf(1, "x".repeat(6 * 2 ** 20)) });
  await waitUntil(() => connections > 1, 2_000);
  client.close();
  await assert.rejects(saving, NoReplyError);
  server.close();
});

void test("a first refusal is the outcome", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request) => refusal(request, "busy"));
  const client = new Client({ endpoint: `ipc://${path}` });
  await assert.rejects(client.saveMessage({ message: messageOf(1) }), { code: "busy", retryable: true });
  assert.equal(fake.bodies.length, 1);
  client.close();
});

void test("maintenance is sent once", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (request.type === "ping") return ok(request, { pong: true });
    socket.destroy();
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  await assert.rejects(client.deleteScope(), /the connection was lost: whether the request took effect is unknown/);
  await client.ping();
  assert.deepEqual(
    fake.requests.map(({ type }) => type),
    ["delete-scope", "ping"],
  );
  client.close();
});

void test("a command that is executed again has its own reply, not the first one's", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const held: [Request, Socket][] = [];
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (request.type === "ping") return ok(request, { pong: true });
    held.push([request, socket]);
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  const abort = new AbortController();
  const save = (signal?: AbortSignal): Promise<null> =>
    client.saveMessage({ message: messageOf(1) }, { requestId: "mine", signal });
  const first = save(abort.signal);
  await client.ping();
  abort.abort();
  await assert.rejects(first, { name: "AbortError" });
  const second = save();
  await client.ping();
  assert.equal(held.length, 2);
  for (const [[request, socket], code] of held.map((each, index) => [each, index === 0 ? "busy" : "ok"] as const)) {
    FakeDaemon.send(socket, JSON.stringify(code === "ok" ? ok(request) : refusal(request, code)));
  }
  assert.equal(await second, null);
  assert.equal(fake.connections, 1);
  client.close();
});

void test("the window has room again when an abandoned command and its repetition have replies", () => {
  const pending = new PendingCalls();
  const message = { message: messageOf(1, "x".repeat(2 ** 20)) };
  const callOf = (requestId?: string): Call =>
    new Call("save-message", message, { timeoutMs: LONG_MS, requestId }, () => undefined);
  const send = (call: Call): void => {
    pending.add(call);
    assert.equal(pending.next(), call);
    pending.markSent(call, performance.now());
  };
  const replied = (id: string): void => {
    pending.handleReply(Buffer.from(JSON.stringify({ id, ok: true, result: null, seq: 1 })), performance.now());
  };
  for (let times = 0; times < 40; times += 1) {
    const abandoned = callOf("mine");
    send(abandoned);
    pending.forget(abandoned);
    send(callOf("mine"));
    replied("mine");
    assert.equal(pending.size, 1);
    replied("mine");
    assert.equal(pending.size, 0);
  }
  for (let times = 0; times < 31; times += 1) send(callOf());
});

void test("what got no reply in time has an unknown outcome, and says so", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, () => undefined);
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: 50 });
  await assert.rejects(client.saveMessage({ message: messageOf(1) }), (error) => {
    assert(error instanceof NoReplyError);
    assert.equal(error.message, "no reply within 50 ms: whether the request took effect is unknown");
    return true;
  });
  const closing = client.saveMessage({ message: messageOf(2) }, { timeoutMs: LONG_MS });
  await waitUntil(() => fake.bodies.length === 2);
  client.close();
  await assert.rejects(closing, /the client was closed: whether the request took effect is unknown/);
  assert.equal(fake.connections, 2); // the first one was silent, so it is taken for lost
});

void test("a waiting query that is sent again waits for the rest of its time", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (fake.connections > 1) return ok(request, { changes: [], cursor: "c", more: false });
    setTimeout(() => socket.destroy(), 30);
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}` });
  await client.getChanges({ waitMs: 10_000 });
  const [first, again] = fake.requests.map(({ payload }) => payload["waitMs"] as number);
  assert(first !== undefined && again !== undefined);
  assert(10_000 >= first && first > again && again > 0);
  client.close();
});

void test("waiting queries hold up nobody", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  await FakeDaemon.start(t, path, (request) => (request.type === "ping" ? ok(request, { pong: true }) : undefined));
  const client = new Client({ endpoint: `ipc://${path}` });
  const waiting = Array.from({ length: 1_100 }, () => client.getChanges({ waitMs: 60_000 }));
  await client.ping();
  const outcomes = Promise.allSettled(waiting);
  client.close();
  assert((await outcomes).every(({ status }) => status === "rejected"));
});

void test("a stopped daemon is waited for, and its silence is an error", async (t) => {
  const daemon = await Daemon.start(t);
  const client = new Client({ dataDir: daemon.dataDir });
  await client.ping();
  daemon.signal("SIGSTOP");
  await assert.rejects(client.ping({}, { timeoutMs: 100 }), NoReplyError);
  await assert.rejects(client.ping({}, { timeoutMs: 100 }), UnavailableError);
  daemon.signal("SIGCONT");
  assert.equal((await client.ping({}, { timeoutMs: LONG_MS })).pong, true);
  client.close();
});

void test("what a later level adds to replies survives", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  await FakeDaemon.start(t, path, (request) => {
    if (request.type === "get-user") return refusal(request, "moon-phase", "caller", false);
    if (request.type === "list-tokens")
      return ok(request, [{ name: "a", right: "dream", createdAt: 1, colour: "red" }]);
    if (request.type === "get-moon") return ok(request, { full: true });
    return refusal(request, "tide");
  });
  const client = new Client({ endpoint: `ipc://${path}` });
  await assert.rejects(client.getUser({ userId: "u" }), (error) => {
    assert(error instanceof CallerError);
    assert.deepEqual([error.code, error.constructor], ["moon-phase", CallerError]);
    return true;
  });
  await assert.rejects(client.ping(), { code: "tide", fault: "daemon", retryable: true, name: "DaemonError" });
  const [token] = await client.listTokens();
  assert.deepEqual(token, { name: "a", right: "dream", createdAt: 1, colour: "red" });
  assert.deepEqual(await client.call("get-moon", {}), { full: true });
  client.close();
});

void test("what is no reply is an error of the daemon", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  await FakeDaemon.start(t, path, (_, socket) => {
    FakeDaemon.send(socket, "nonsense");
    return undefined;
  });
  const client = new Client({ endpoint: `ipc://${path}` });
  await assert.rejects(client.ping(), { code: "internal", message: "the daemon sent an invalid reply" });
  client.close();
});

void test("a code that is a name in every object is a code like any other", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const codes = ["constructor", "__proto__", "toString", "hasOwnProperty"];
  await FakeDaemon.start(t, path, (request) => refusal(request, request.traceparent ?? "", "caller", false));
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  for (const code of codes) {
    await assert.rejects(client.ping({}, { traceparent: code }), { code, name: "CallerError" });
    await assert.rejects(client.call(code, {}, { traceparent: "forbidden" }), { name: "ForbiddenError" });
  }
  client.close();
});

void test("details that are not as declared are an error all the same", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  let details: unknown;
  await FakeDaemon.start(t, path, ({ id }) => ({ id, ok: false, error: { code: "invalid", message: "no", details } }));
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: LONG_MS });
  for (details of [5, "text", null, { failures: [null] }, { failures: "text" }]) {
    const error: unknown = await client.ping().catch((error: unknown) => error);
    assert(error instanceof InvalidError);
    assert(error.failures.every(({ index, code }) => index === -1 && code === ""));
  }
  client.close();
});

void test("a waitMs that the daemon refuses is sent as it is, and its refusal is waited for", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir, timeoutMs: LONG_MS });
  for (const waitMs of [-LONG_MS, 60_001, 2 ** 53 - 1, 1e300]) {
    const path = "$.payload.waitMs";
    await assert.rejects(client.getChanges({ waitMs }), (error) => {
      assert(error instanceof InvalidError);
      assert.equal(error.details?.["path"], path);
      return true;
    });
  }
  client.close();
});
