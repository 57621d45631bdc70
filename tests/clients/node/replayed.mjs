// A log file as a fixture in another language: replay it into a fresh directory, serve that, read what is there.
//
//   node --test replayed.mjs   with BACKSCROLL, the command, and LOG, a file of a conversation, in the environment

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { Request } from "zeromq";

const { BACKSCROLL, LOG } = process.env;
const scratch = mkdtempSync(join(tmpdir(), "replayed-"));
const directory = join(scratch, "data");
const socket = new Request({ linger: 0, sendTimeout: 20_000, receiveTimeout: 20_000 });
let daemon, auth;

before(async () => {
  execFileSync(BACKSCROLL, ["replay", LOG, "--into", directory], { stdio: ["ignore", "inherit", "pipe"] });
  const flags = ["--data-dir", directory, "--endpoint", "tcp://127.0.0.1:*", "--exit-with-parent"];
  daemon = spawn(BACKSCROLL, ["serve", ...flags], { stdio: ["pipe", "pipe", "ignore"] });
  const ready = await new Promise((resolve) => createInterface({ input: daemon.stdout }).once("line", resolve));
  socket.connect(JSON.parse(ready).endpoints[0]);
  auth = JSON.parse(readFileSync(join(directory, "endpoint.json"))).token;
});

after(async () => {
  socket.close();
  const ended = new Promise((resolve) => daemon.once("exit", resolve));
  daemon.stdin.end();
  await ended;
  rmSync(scratch, { recursive: true });
});

async function call(type, payload) {
  await socket.send(JSON.stringify({ id: randomUUID(), type, payload, auth }));
  const [body] = await socket.receive();
  const reply = JSON.parse(body);
  assert.ok(reply.ok, JSON.stringify(reply.error));
  return reply.result;
}

test("the conversation is there", async () => {
  const messages = await call("get-messages", { roomId: "harbour" });
  assert.deepEqual(
    messages.map(({ senderId, content }) => [senderId, content]),
    [
      ["ada", "High tide is at 11:20."],
      ["bo", "Then we leave at elevn."],
    ],
  );
  assert.deepEqual(messages[0].reactions, [{ messageId: "m1", oderId: "bo", emoji: "👍" }]);
});

test("it goes on from there", async () => {
  const { lastSeq, entries } = await call("get-log", { limit: 1 });
  assert.equal(lastSeq, 4);
  assert.deepEqual(entries[0].payload, { room: { id: "harbour", name: "Harbour" } });
  await call("update-message", { messageId: "m2", updates: { content: "Then we leave at eleven." } });
  const [, second] = await call("get-messages", { roomId: "harbour" });
  assert.equal(second.content, "Then we leave at eleven.");
});
