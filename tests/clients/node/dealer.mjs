// A pipelining client in JavaScript: a DEALER that speaks MessagePack.
//
//   node dealer.mjs ENDPOINT [TOKEN]
//
// Checks what Python saved into the room `python`, saves the same and many more into the room `dealer`, reads them
// back, and prints one line of JSON about it.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { decode, encode } from "@msgpack/msgpack";
import { Dealer } from "zeromq";
import { asRead, messagesOf } from "./messages.mjs";

const MANY = 1_000;
const PAGE = 500;
const ROOM = "dealer";

const socket = new Dealer({ linger: 0, sendTimeout: 20_000, receiveTimeout: 20_000 });
socket.connect(process.argv[2]);

/** Send every request before waiting for a reply; the results in the order of the requests. */
async function pipeline(operations) {
  const requests = operations.map(([type, payload]) => ({ id: randomUUID(), type, payload, auth: process.argv[3] }));
  const replies = new Map();
  const receiving = (async () => {
    while (replies.size < requests.length) {
      const [body] = await socket.receive();
      const reply = decode(body);
      replies.set(reply.id, reply);
    }
  })();
  for (const request of requests) {
    await socket.send(encode(request, { ignoreUndefined: true }));
  }
  await receiving;
  return requests.map(({ id }) => replies.get(id));
}

async function results(operations) {
  return (await pipeline(operations)).map((reply) => {
    assert.ok(reply.ok, JSON.stringify(reply.error));
    return reply.result;
  });
}

async function readRoom(roomId, expected) {
  const pages = [];
  for (let offset = 0; offset <= expected; offset += PAGE) {
    pages.push(["get-messages", { roomId, limit: PAGE, offset }]);
  }
  return (await results(pages)).flat();
}

const ofPython = asRead(messagesOf("python", "python"));
assert.deepEqual(await readRoom("python", ofPython.length), ofPython);

const many = Array.from({ length: MANY }, (_, number) => ({
  id: `many-${number}`,
  roomId: ROOM,
  senderId: "node",
  content: `number ${number} 🚢`,
  timestamp: 1_767_226_000_000 + number,
  metadata: { number },
}));
const messages = [...messagesOf("dealer", ROOM), ...many];
const saved = await results(messages.map((message) => ["save-message", { message }]));
assert.ok(saved.every((result) => result === null));
assert.deepEqual(await readRoom(ROOM, messages.length), asRead(messages));

const [one, none] = await results([
  ["get-message-by-id", { messageId: "many-7" }],
  ["get-message-by-id", { messageId: "nobody wrote this" }],
]);
assert.deepEqual([one, none], [asRead([many[7]])[0], null]);

const [refused] = await pipeline([["save-message", { message: { ...many[0], timestamp: "late" } }]]);
assert.equal(refused.ok, false);
assert.equal(refused.error.code, "invalid");
assert.match(refused.error.message, /\$\.payload\.message\.timestamp/);

socket.close();
console.log(JSON.stringify({ client: "DEALER, MessagePack", read: ofPython.length, saved: messages.length }));
