/** Who is calling: tokens, and whether what answers is the daemon. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Client, ForbiddenError, UnauthenticatedError, UnavailableError } from "../src/index.js";
import {
  Daemon,
  FakeDaemon,
  GREETING,
  LONG_MS,
  backscroll,
  messageOf,
  ok,
  refusal,
  temporaryDirectory,
  waitUntil,
} from "./support.js";

const TCP = ["--endpoint", "tcp://127.0.0.1:*"];

void test("a token without the right or the scope is forbidden", async (t) => {
  const { dataDir, ready } = await Daemon.start(t, ...TCP);
  const [endpoint] = ready.endpoints;
  const words = ["token", "create", "bot", "--right", "read", "--scope", "ada", "--data-dir", dataDir];
  const token =
    backscroll(...words)
      .split("\n")
      .at(-1) ?? "";
  const client = new Client({ endpoint, token, scope: "ada" });
  assert.deepEqual(await client.listUsers(), []);
  await assert.rejects(client.saveMessage({ message: messageOf(1) }), ForbiddenError);
  const elsewhere = new Client({ endpoint, token, scope: "bob" });
  await assert.rejects(elsewhere.listUsers(), ForbiddenError);

  backscroll("token", "revoke", "bot", "--data-dir", dataDir);
  await assert.rejects(client.listUsers(), UnauthenticatedError);
  const after = new Client({ endpoint, token, scope: "ada", timeoutMs: LONG_MS });
  await assert.rejects(after.listUsers(), (error) => {
    assert(error instanceof UnauthenticatedError);
    assert.match(error.message, /does not know the token "bot": it was revoked, has expired, or is for another daemon/);
    return true;
  });
  for (const each of [client, elsewhere, after]) each.close();
});

void test("a token that may write is not one that may administer", async (t) => {
  const { dataDir, ready } = await Daemon.start(t, ...TCP);
  const words = ["token", "create", "bot", "--right", "write", "--data-dir", dataDir];
  const token = backscroll(...words)
    .split("\n")
    .at(-1);
  const client = new Client({ endpoint: ready.endpoints[0], token });
  assert.equal(await client.saveMessage({ message: messageOf(1) }), null);
  for (const forbidden of [client.getLog(), client.deleteScope(), client.listTokens()]) {
    await assert.rejects(forbidden, ForbiddenError);
  }
  assert.equal((await client.getMessageById({ messageId: "m1" }))?.content, "1");
  client.close();
});

void test("without a token it says where to get one", async (t) => {
  const { ready } = await Daemon.start(t, ...TCP);
  const client = new Client({ endpoint: ready.endpoints[0], dataDir: temporaryDirectory(t), timeoutMs: LONG_MS });
  await assert.rejects(client.ping(), (error) => {
    assert(error instanceof UnauthenticatedError);
    assert.match(error.message, /there is no token for tcp:.*`backscroll token create`/);
    return true;
  });
  client.close();
  const bad = new Client({ endpoint: ready.endpoints[0], token: "line\nbreak" });
  await assert.rejects(bad.ping(), { code: "invalid" });
  bad.close();
});

void test("an impostor on the old port gets neither token nor requests", async (t) => {
  const daemon = await Daemon.start(t, ...TCP);
  const { endpoints, token } = daemon.ready;
  const client = new Client({ dataDir: daemon.dataDir, timeoutMs: 300 });
  await client.saveMessage({ message: messageOf(1) });
  await daemon.kill();
  const port = Number(endpoints[0]?.split(":").at(-1));
  const impostor = await FakeDaemon.start(t, port, (request) =>
    request.type === "hello" ? ok(request, { proof: "0".repeat(64), endpoints }) : ok(request),
  );
  await assert.rejects(client.saveMessage({ message: messageOf(2, "a secret") }), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /did not prove that it knows the token: it is another program/);
    return true;
  });
  assert(impostor.requests.length > 0);
  assert(impostor.requests.every(({ type, auth }) => type === "hello" && auth === undefined));
  assert(token !== undefined && !impostor.bodies.some((body) => body.includes(token) || body.includes("secret")));
  impostor.close();

  await daemon.start();
  await client.saveMessage({ message: messageOf(2) }, { timeoutMs: LONG_MS });
  client.close();
});

void test("a program that passes on what the daemon says gets neither token nor requests", async (t) => {
  const { endpoints, token = "" } = (await Daemon.start(t, ...TCP)).ready;
  const port = Number(endpoints[0]?.split(":").at(-1));
  let seen = "";
  const impostor = createTcpServer((socket) => {
    const daemon = connect({ port, host: "127.0.0.1" });
    socket.on("data", (chunk) => (seen += chunk.toString("latin1")));
    socket.pipe(daemon).pipe(socket);
    for (const each of [socket, daemon]) each.on("error", () => undefined);
    socket.on("close", () => daemon.destroy());
  }).listen(0, "127.0.0.1");
  await once(impostor, "listening");
  t.after(() => impostor.close());
  const endpoint = `tcp://127.0.0.1:${String((impostor.address() as AddressInfo).port)}`;
  const client = new Client({ endpoint, token, timeoutMs: 300 });
  await assert.rejects(client.saveMessage({ message: messageOf(1, "a secret") }), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /did not prove that it knows the token: it is another program/);
    return true;
  });
  client.close();
  assert.match(seen, /"type":"hello"/);
  assert(!seen.includes(token) && !seen.includes("secret"));
});

void test("a daemon that refuses hello is not trusted", async (t) => {
  const fake = await FakeDaemon.start(t, 0, (request) => refusal(request, "unknown-operation", "caller", false));
  const client = new Client({ endpoint: `tcp://127.0.0.1:${String(fake.port)}`, token: "bot.secret", timeoutMs: 100 });
  await assert.rejects(client.ping(), /did not prove that it knows the token and answered "unknown-operation"/);
  assert(!fake.bodies.some((body) => body.includes("secret")));
  client.close();
});

void test("a proof with endpoints that are no text proves nothing, and does no harm", async (t) => {
  const endpoints = [{ toString: 1, valueOf: 1 }, null, 5];
  const fake = await FakeDaemon.start(t, 0, (request) => ok(request, { proof: "0".repeat(64), endpoints }));
  const client = new Client({ endpoint: `tcp://127.0.0.1:${String(fake.port)}`, token: "bot.secret", timeoutMs: 100 });
  await assert.rejects(client.ping(), /did not prove that it knows the token/);
  client.close();
});

void test("of what a daemon says when it refuses, only the reason is quoted", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const refusals = ["\x05ERROR\x04full and more", "\x05READY\x0bSocket-Type\0\0\x10\0" + "x".repeat(4096)];
  const server = createTcpServer((socket) => {
    const command = Buffer.from(refusals.shift() ?? "\x05ERROR\0", "latin1");
    const header = Buffer.from([6, 0, 0, 0, 0, 0, 0, command.length >> 8, command.length & 255]);
    socket.on("error", () => undefined);
    socket.write(Buffer.concat([GREETING, header, command]));
  }).listen(path);
  await once(server, "listening");
  t.after(() => server.close());
  const problems: string[] = [];
  const client = new Client({
    endpoint: `ipc://${path}`,
    timeoutMs: LONG_MS,
    onConnection: (problem) => problems.push(problem?.message.split(": ").slice(1).join(": ") ?? ""),
  });
  const waiting = client.ping().catch(() => undefined);
  await waitUntil(() => problems.length >= 2);
  client.close();
  await waiting;
  const type = JSON.stringify("x".repeat(64));
  assert.deepEqual(problems.slice(0, 2), [
    "the daemon refused the connection: full",
    `what answers there is a ${type}, no daemon's socket`,
  ]);
});

void test("a program that speaks no ZMTP is told apart", async (t) => {
  const directory = temporaryDirectory(t);
  const server = createServer((_, response) => response.end("hello")).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const endpoint = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  writeFileSync(join(directory, "endpoint.json"), JSON.stringify({ endpoints: [endpoint], token: "start" }));
  const client = new Client({ dataDir: directory, timeoutMs: 200 });
  await assert.rejects(client.ping(), /does not speak ZMTP 3: it is no backscroll daemon/);
  client.close();
});
