/** `zmtp.json`: a daemon byte by byte, which a client pings. */

import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "../../src/index.js";
import { type Context, TIMEOUT_MS } from "./context.js";
import { checkKeys, type Vector } from "./files.js";

interface Step {
  send?: string;
  each?: number;
  receive?: "greeting" | "ready" | "request";
  silent?: number;
  reply?: number;
  padding?: number;
  end?: boolean;
}

export interface ZmtpVector extends Vector {
  connections: Step[][];
}

const STEP_KEYS = ["send", "each", "receive", "silent", "reply", "padding", "end"];
const GREETING_BYTES = 64;
const MORE = 1;
const LONG = 2;
const COMMAND = 4;
let sockets = 0;

export async function playZmtp(vector: ZmtpVector, context: Context): Promise<string> {
  const path = join(context.directory, `z${String(++sockets)}`);
  const server = createServer().listen(path);
  const client = new Client({ endpoint: `ipc://${path}`, timeoutMs: TIMEOUT_MS });
  try {
    const served = serve(server, vector.connections).catch((error: unknown) => error as Error);
    const ping = client.ping().catch((error: unknown) => error as Error);
    // A daemon that met something wrong plays no further, so the client waits in vain.
    const first = await Promise.race([served, ping]);
    if (first instanceof Error) return first.message;
    client.close();
    return (await served)?.message ?? "";
  } finally {
    client.close();
    server.close();
  }
}

/** Play one connection after the other; throws what is not as expected. */
async function serve(server: Server, connections: Step[][]): Promise<undefined> {
  const arrived: Stream[] = [];
  server.on("connection", (socket) => {
    arrived.push(new Stream(socket));
    server.emit("arrived");
  });
  for (const [index, steps] of connections.entries()) {
    if (arrived.length === 0) await once(server, "arrived", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const stream = arrived.shift();
    if (stream === undefined) throw new Error("there is no connection");
    try {
      await play(stream, steps);
      if (index + 1 < connections.length && !steps.some(({ end }) => end)) await stream.end();
    } catch (error) {
      const where = `connection ${String(index + 1)} of ${String(connections.length)}`;
      throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
    } finally {
      if (index + 1 < connections.length) stream.close();
    }
  }
  return undefined;
}

async function play(stream: Stream, steps: Step[]): Promise<void> {
  let request: { id?: string } = {};
  for (const step of steps) {
    checkKeys(step, STEP_KEYS);
    if (step.end) return;
    if (step.receive === "greeting") checkGreeting(await stream.read(GREETING_BYTES));
    else if (step.receive === "ready") checkReady(await stream.frame());
    else if (step.receive === "request") request = await received(stream);
    else if (step.silent !== undefined) await stream.silence(step.silent);
    else if (step.reply !== undefined) await stream.write(replyTo(request, step.reply, step.padding ?? 0));
    else if (step.each === undefined) await stream.write(Buffer.from(step.send ?? "", "hex"));
    else for (const byte of Buffer.from(step.send ?? "", "hex")) await stream.write(Buffer.from([byte]));
  }
}

function checkGreeting(greeting: Buffer): void {
  const mechanism = greeting.toString("latin1", 12, 32).replace(/\0+$/, "");
  if (greeting[0] !== 0xff || greeting[9] !== 0x7f || greeting[10] !== 3 || mechanism !== "NULL") {
    throw new Error(`the client's greeting is not one of ZMTP 3 with the mechanism NULL: ${greeting.toString("hex")}`);
  }
}

function checkReady({ flags, body }: Frame): void {
  const text = body.toString("latin1");
  if (!(flags & COMMAND) || !text.startsWith("\x05READY") || !text.includes("\x0bSocket-Type\0\0\0\x06DEALER")) {
    throw new Error(`expected READY of a DEALER, got flags ${String(flags)} and ${JSON.stringify(text)}`);
  }
}

/** The client's next message, which must be one frame; commands are skipped. */
async function received(stream: Stream): Promise<{ id?: string }> {
  for (;;) {
    const { flags, body } = await stream.frame();
    if (flags & COMMAND) continue;
    if (flags & MORE) throw new Error("the client's request has more than one frame");
    return JSON.parse(body.toString()) as { id?: string };
  }
}

/** A frame with the reply to a `ping`. */
function replyTo({ id }: { id?: string }, flags: number, padding: number): Buffer {
  const padded = padding ? { padding: "x".repeat(padding) } : {};
  const body = Buffer.from(JSON.stringify({ id, ok: true, result: { pong: true }, seq: 0, ...padded }));
  const header = Buffer.alloc(flags & LONG ? 9 : 2);
  header[0] = flags;
  if (flags & LONG) header.writeBigUInt64BE(BigInt(body.length), 1);
  else header[1] = body.length;
  return Buffer.concat([header, body]);
}

interface Frame {
  flags: number;
  body: Buffer;
}

/** The daemon's end of a connection. */
class Stream {
  readonly #socket: Socket;
  #bytes = Buffer.alloc(0);
  #hasEnded = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      socket.emit("changed");
    });
    socket.on("error", () => undefined);
    for (const name of ["end", "close"]) {
      socket.on(name, () => {
        this.#hasEnded = true;
        socket.emit("changed");
      });
    }
  }

  async read(size: number): Promise<Buffer> {
    while (this.#bytes.length < size) {
      const got = `${String(this.#bytes.length)} of ${String(size)} bytes`;
      if (this.#hasEnded) throw new Error(`the client closed the connection after ${got}`);
      await this.#change(`the client sent ${got}`);
    }
    const found = this.#bytes.subarray(0, size);
    this.#bytes = this.#bytes.subarray(size);
    return found;
  }

  async frame(): Promise<Frame> {
    const flags = (await this.read(1))[0] ?? 0;
    const size = flags & LONG ? Number((await this.read(8)).readBigUInt64BE()) : ((await this.read(1))[0] ?? 0);
    return { flags, body: await this.read(size) };
  }

  async silence(milliseconds: number): Promise<void> {
    await sleep(milliseconds);
    if (this.#bytes.length > 0)
      throw new Error(`the client sent ${this.#bytes.toString("hex")} where nothing may come`);
  }

  /** Wait until the client closes the connection. */
  async end(): Promise<void> {
    while (!this.#hasEnded) await this.#change("the client did not close the connection");
  }

  async write(bytes: Buffer): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#socket.write(bytes, () => {
        resolve();
      });
    });
  }

  close(): void {
    this.#socket.destroySoon();
  }

  async #change(problem: string): Promise<void> {
    try {
      await once(this.#socket, "changed", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    } catch {
      throw new Error(problem);
    }
  }
}
