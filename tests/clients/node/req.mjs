// The smallest client in JavaScript: a REQ that speaks JSON, one request at a time, no MessagePack.
//
//   node req.mjs ENDPOINT [TOKEN]
//
// Checks what Python saved into the room `python`, saves the same into the room `req`, reads it back, and prints one
// line of JSON about it.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Request } from "zeromq";
import { asRead, messagesOf } from "./messages.mjs";

const ROOM = "req";

const socket = new Request({ linger: 0, sendTimeout: 20_000, receiveTimeout: 20_000 });
socket.connect(process.argv[2]);

async function call(type, payload) {
  const id = randomUUID();
  await socket.send(JSON.stringify({ id, type, payload, auth: process.argv[3] }));
  const [body] = await socket.receive();
  const reply = JSON.parse(body.toString());
  assert.equal(reply.id, id);
  return reply;
}

async function result(type, payload) {
  const reply = await call(type, payload);
  assert.ok(reply.ok, JSON.stringify(reply.error));
  return reply.result;
}

assert.deepEqual(await result("ping"), { pong: true });

const ofPython = asRead(messagesOf("python", "python"));
assert.deepEqual(await result("get-messages", { roomId: "python" }), ofPython);

const messages = messagesOf("req", ROOM);
for (const message of messages) {
  assert.equal(await result("save-message", { message }), null);
}
assert.deepEqual(await result("get-messages", { roomId: ROOM }), asRead(messages));
for (const message of asRead(messages)) {
  assert.deepEqual(await result("get-message-by-id", { messageId: message.id }), message);
}

const refused = await call("save-massage", {});
assert.equal(refused.error.code, "unknown-operation");

socket.close();
console.log(JSON.stringify({ client: "REQ, JSON", read: ofPython.length, saved: messages.length }));
