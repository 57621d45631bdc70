// Follow the changes of a room, over the raw protocol: no packages, ZMTP by hand.
//
//   node follow.mjs DATA_DIR ROOM
//
// Prints JSON lines: first {"shown": ids of the newest messages, "gap": false} and {"cursor"}, then {"seq", "noun",
// "id", "gone"} of each change and {"cursor"} after each page. When the daemon is lost, it connects again and asks on
// with the same cursor. If that belongs to another history, it shows the room anew, with "gap": true.

import { createHash, createHmac, randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const [dataDir, roomId] = process.argv.slice(2);
const [waitMs, timeoutMs] = [30_000, 40_000]; // the second for a daemon that hangs
const [shortestDelayMs, longestDelayMs] = [25, 500];
const largestFrame = 8 * 2 ** 20; // bytes of a reply
const [LONG, COMMAND] = [2, 4]; // flags of a frame

// The signature, version 3.0, the mechanism, and zeros up to 64 bytes; then the command READY with our type of socket.
const greeting = Buffer.concat([Buffer.from("ff00000000000000007f0300", "hex"), Buffer.from("NULL")], 64);
const ready = Buffer.from("\x05READY\x0bSocket-Type\0\0\0\x06DEALER");

const print = (line) => console.log(JSON.stringify(line));

/** A connection to the daemon's first endpoint, which is ipc or tcp; one request at a time is asked on it. */
class Daemon {
  #received = Buffer.alloc(0);
  #chunks;

  constructor() {
    const { endpoints, token } = JSON.parse(readFileSync(join(dataDir, "endpoint.json")));
    this.endpoint = endpoints[0];
    this.token = token;
    const [scheme, address] = this.endpoint.split("://");
    const colon = address.lastIndexOf(":");
    const tcp = { host: address.slice(0, colon), port: address.slice(colon + 1) };
    this.socket = connect(scheme === "tcp" ? tcp : { path: address });
    this.socket.setTimeout(timeoutMs, () => this.socket.destroy(new Error("the daemon does not answer")));
  }

  async open() {
    await once(this.socket, "connect");
    this.#chunks = this.socket[Symbol.asyncIterator]();
    this.socket.write(greeting);
    await this.#read(greeting.length);
    this.#send(COMMAND, ready);
    await this.#receive(COMMAND); // the daemon's READY: it takes no request before
    if (this.endpoint.startsWith("tcp:")) {
      await this.#checkProof();
      this.auth = this.token;
    }
  }

  async ask(type, payload) {
    const id = randomUUID();
    this.#send(0, Buffer.from(JSON.stringify({ id, type, payload, auth: this.auth })));
    const reply = JSON.parse(await this.#receive(0));
    if (!reply.ok) throw Object.assign(new Error(reply.error.message), { final: !reply.error.retryable });
    if (reply.id !== id) throw new Error("a reply to another request");
    return reply.result;
  }

  /** Have the daemon prove that it knows the token, before the token is sent. */
  async #checkProof() {
    const nonce = randomBytes(16).toString("hex");
    const { proof, endpoints } = await this.ask("hello", { nonce });
    const text = ["backscroll-hello", nonce, ...endpoints].join("\n");
    const key = createHash("sha256").update(this.token).digest();
    const proven = proof === createHmac("sha256", key).update(text).digest("hex") && endpoints.includes(this.endpoint);
    if (!proven) throw new Error("another program has the daemon's port");
  }

  #send(flags, body) {
    const header = Buffer.alloc(9, flags | LONG);
    header.writeBigUInt64BE(BigInt(body.length), 1);
    this.socket.write(Buffer.concat([header, body]));
  }

  /** The body of the next frame that is a command, or that is a reply; others are skipped. */
  async #receive(kind) {
    const flags = (await this.#read(1))[0];
    const size = flags & LONG ? Number((await this.#read(8)).readBigUInt64BE()) : (await this.#read(1))[0];
    if (size > largestFrame) throw new Error(`a frame of ${size} bytes`);
    const body = await this.#read(size);
    return (flags & COMMAND) === kind ? body : this.#receive(kind);
  }

  async #read(size) {
    while (this.#received.length < size) {
      const { value, done } = await this.#chunks.next();
      if (done) throw new Error("the connection was closed");
      this.#received = Buffer.concat([this.#received, value]);
    }
    const part = this.#received.subarray(0, size);
    this.#received = this.#received.subarray(size);
    return part;
  }
}

/** Print changes until something fails. */
async function follow(daemon) {
  for (;;) {
    const page = await daemon.ask("get-changes", { after: cursor, waitMs, rooms: [roomId] });
    if (page.gap || cursor === "now") {
      const { messages } = await daemon.ask("get-message-page", { roomId });
      print({ shown: messages.map(({ id }) => id), gap: page.gap ?? false });
    }
    for (const { seq, noun, id, gone = false } of page.changes) print({ seq, noun, id, gone });
    cursor = page.cursor;
    print({ cursor });
    delayMs = shortestDelayMs;
  }
}

let cursor = "now";
let delayMs = shortestDelayMs;
for (;;) {
  let daemon;
  try {
    daemon = new Daemon();
    await daemon.open();
    await follow(daemon);
  } catch (error) {
    if (error.final) throw error;
    console.error(`${error.message}; trying again`);
  }
  daemon?.socket.destroy();
  await sleep(delayMs);
  delayMs = Math.min(2 * delayMs, longestDelayMs);
}
