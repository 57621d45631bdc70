/**
 * One connection that speaks ZMTP 3.0 with the mechanism NULL, as a DEALER: greeting, READY, and then frames.
 *
 * A message is one frame, the body. The end of the stream is the end of the connection; it never connects again.
 */

import { type NetConnectOpts, type Socket, connect } from "node:net";
import { LIMITS } from "./generated/limits.js";

const GREETING = Buffer.concat([Buffer.from("ff00000000000000007f0300", "hex"), Buffer.from("NULL")], 64);
const READY_NAME_BYTES = 6;
const ERROR_NAME_BYTES = 6;
/** So much of a socket's type is quoted: whoever sent it may be anybody. */
const TYPE_CHARS_MAX = 64;
const READY = Buffer.from("\x05READY\x0bSocket-Type\0\0\0\x06DEALER");
const MORE = 1;
const LONG = 2;
const COMMAND = 4;
const HEADER_BYTES = 9;
/** The types of sockets that a DEALER talks to; a daemon has a ROUTER. */
const PEERS = new Set(["ROUTER", "DEALER", "REP"]);

/** What happens on a connection. After `closed` nothing does. */
export interface ConnectionEvents {
  /** The daemon is ready: requests may be sent from now on. */
  ready(): void;
  message(body: Buffer): void;
  closed(reason: string): void;
}

export class ZmtpConnection {
  /** When the latest bytes arrived, on the clock of `performance.now()`. */
  receivedAt = performance.now();
  readonly #socket: Socket;
  readonly #events: ConnectionEvents;
  #state: "greeting" | "handshake" | "ready" | "closed" = "greeting";
  #chunks: Buffer[] = [];
  #size = 0;
  /** How many bytes are needed before there is something to read. */
  #needed = 1;
  #isCorked = false;

  constructor(target: NetConnectOpts, events: ConnectionEvents) {
    this.#events = events;
    this.#socket = connect({ ...target, noDelay: true } as NetConnectOpts);
    this.#socket.on("connect", () => this.#socket.write(GREETING));
    this.#socket.on("data", (chunk) => {
      this.#received(chunk);
    });
    this.#socket.on("error", (error) => {
      this.close(error.message);
    });
    // After "end" the socket would first write what it has, which a daemon that reads no more does not take.
    for (const event of ["end", "close"]) {
      this.#socket.on(event, () => {
        this.close("the connection was closed");
      });
    }
  }

  /** Send a message. What is sent in one turn of the event loop is written at once. */
  send(body: string): void {
    if (!this.#isCorked) {
      this.#isCorked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#isCorked = false;
        this.#socket.uncork();
      });
    }
    const size = Buffer.byteLength(body);
    const frame = Buffer.allocUnsafe(HEADER_BYTES + size);
    frame[0] = LONG;
    frame.writeBigUInt64BE(BigInt(size), 1);
    frame.write(body, HEADER_BYTES);
    this.#socket.write(frame);
  }

  /** Whether this connection keeps the process alive. */
  keepAlive(active: boolean): void {
    if (active) this.#socket.ref();
    else this.#socket.unref();
  }

  close(reason: string): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#socket.destroy();
    this.#events.closed(reason);
  }

  #received(chunk: Buffer): void {
    this.receivedAt = performance.now();
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size < this.#needed) return;
    let bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    for (;;) {
      const used = this.#state === "greeting" ? this.#greeting(bytes) : this.#frame(bytes);
      if (this.#isClosed()) return; // a handler closed it, or the bytes are not what ZMTP allows
      if (used === 0) break;
      bytes = bytes.subarray(used);
    }
    this.#chunks = bytes.length > 0 ? [bytes] : [];
    this.#size = bytes.length;
  }

  /** The other side's greeting; returns how many bytes were used, 0 if more are needed. */
  #greeting(bytes: Buffer): number {
    this.#needed = GREETING.length;
    if (bytes[0] === GREETING[0] && bytes.length < GREETING.length) return 0;
    const isZmtp = bytes[0] === 0xff && bytes[9] === 0x7f && (bytes[10] ?? 0) >= 3;
    const mechanism = bytes.toString("latin1", 12, 32).replace(/\0+$/, "");
    if (!isZmtp) this.close("what answers there does not speak ZMTP 3: it is no backscroll daemon");
    else if (mechanism !== "NULL")
      this.close(`the daemon asks for the mechanism ${mechanism}, which this client lacks`);
    else {
      this.#socket.write(Buffer.concat([Buffer.from([COMMAND, READY.length]), READY]));
      this.#state = "handshake";
    }
    return GREETING.length;
  }

  /** The next frame; returns how many bytes were used, 0 if more are needed. */
  #frame(bytes: Buffer): number {
    const flags = bytes[0] ?? 0;
    const header = flags & LONG ? HEADER_BYTES : 2;
    this.#needed = header;
    if (bytes.length < header) return 0;
    const size = flags & LONG ? Number(bytes.readBigUInt64BE(1)) : (bytes[1] ?? 0);
    if (size > LIMITS.frameBytes) {
      this.close(`the daemon sent a frame of ${String(size)} bytes`);
      return 0;
    }
    this.#needed = header + size;
    if (bytes.length < this.#needed) return 0;
    const body = bytes.subarray(header, header + size);
    if (flags & COMMAND) this.#command(body);
    else if (this.#state !== "ready") this.close("the daemon sent a message before it was ready");
    else if (!(flags & MORE)) this.#events.message(body); // frames before the body carry nothing for a DEALER
    return header + size;
  }

  #command(body: Buffer): void {
    const name = body.toString("latin1", 1, 1 + (body[0] ?? 0));
    if (name === "ERROR") {
      const reason = body.toString(
        "latin1",
        ERROR_NAME_BYTES + 1,
        ERROR_NAME_BYTES + 1 + (body[ERROR_NAME_BYTES] ?? 0),
      );
      this.close(`the daemon refused the connection: ${reason}`);
    }
    if (name === "READY" && this.#state === "handshake") {
      const type = propertyOf(body.subarray(READY_NAME_BYTES), "socket-type");
      if (!PEERS.has(type)) {
        this.close(`what answers there is a ${JSON.stringify(type.slice(0, TYPE_CHARS_MAX))}, no daemon's socket`);
        return;
      }
      this.#state = "ready";
      this.#events.ready();
    }
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }
}

/** The value of a property in the metadata of READY, whose names are in any case; empty if there is none. */
function propertyOf(metadata: Buffer, wanted: string): string {
  for (let at = 0; at + 1 < metadata.length;) {
    const value = at + 1 + (metadata[at] ?? 0) + 4;
    if (value > metadata.length) break;
    const name = metadata.toString("latin1", at + 1, value - 4).toLowerCase();
    const end = value + metadata.readUInt32BE(value - 4);
    if (name === wanted) return metadata.toString("latin1", value, end);
    at = end;
  }
  return "";
}
