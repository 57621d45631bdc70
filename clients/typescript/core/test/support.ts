/** What tests share: daemons of this repository, and a small fake one. */

import assert from "node:assert/strict";
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, type Server, type Socket, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { MessageInput } from "../src/index.js";

/** The folder of the whole project. */
const ROOT = new URL("../../../../../", import.meta.url);
/** Python 3.11 or newer, for the proxy: the environment variable PYTHON, or what is on the PATH. */
const PYTHON = process.env["PYTHON"] ?? "python3";
/** The command that starts daemons: the environment variable BACKSCROLL, or what is on the PATH. */
export const BACKSCROLL = process.env["BACKSCROLL"] ?? "backscroll";
/** Whether the long forms of tests run. */
export const IS_LONG = process.env["LONG"] !== undefined;
export const LONG_MS = 20_000;

export interface Ready {
  endpoints: string[];
  token?: string;
}

export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "backscroll-ts-"));
  t.after(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** A daemon that serves a directory; it is killed and started again as a test says, and ends with it. */
export class Daemon {
  readonly dataDir: string;
  readonly #flags: string[];
  #process: ChildProcess | undefined;

  private constructor(t: TestContext, flags: string[]) {
    t.after(() => this.kill()); // before its directory is removed
    this.dataDir = temporaryDirectory(t);
    this.#flags = flags;
  }

  static async start(t: TestContext, ...flags: string[]): Promise<Daemon> {
    const daemon = new Daemon(t, flags);
    await daemon.start();
    return daemon;
  }

  async start(): Promise<void> {
    const words = ["serve", "--data-dir", this.dataDir, "--exit-with-parent", ...this.#flags];
    this.#process = spawn(BACKSCROLL, words, { stdio: ["pipe", "pipe", "ignore"] });
    assert(this.#process.stdout);
    await once(this.#process.stdout, "data");
  }

  async kill(): Promise<void> {
    const daemon = this.#process;
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    daemon.kill("SIGKILL");
    await once(daemon, "exit");
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name);
  }

  get ready(): Ready {
    return JSON.parse(readFileSync(join(this.dataDir, "endpoint.json"), "utf8")) as Ready;
  }
}

/** The proxy of the project's tests: it cuts connections at any byte, delays, and swallows what is sent for a while. */
export class Proxy {
  readonly endpoint: string;
  readonly #process: ChildProcess;

  private constructor(program: ChildProcess, endpoint: string) {
    this.#process = program;
    this.endpoint = endpoint;
  }

  static async start(t: TestContext, target: string, seed: number): Promise<Proxy> {
    const listen = `ipc://${join(temporaryDirectory(t), "proxy")}`;
    const words = ["-m", "tests.support.proxy", listen, target, "--seed", String(seed)];
    const program = spawn(PYTHON, words, { cwd: ROOT, stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => program.kill());
    const [line] = (await once(program.stdout, "data")) as [Buffer];
    return new Proxy(program, (JSON.parse(line.toString()) as { endpoint: string }).endpoint);
  }

  /** Stop it; returns how many faults there were. */
  async stop(): Promise<number> {
    this.#process.stdin?.end();
    const [line] = (await once(this.#process.stdout ?? this.#process, "data")) as [Buffer];
    const { faults } = JSON.parse(line.toString()) as { faults: Record<string, number> };
    return Object.values(faults).reduce((sum, each) => sum + each, 0);
  }
}

/** Between a client and a daemon: the test decides which replies are lost, and when the connection is. */
export class Relay {
  readonly endpoint: string;
  losesReplies = false;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(path: string, target: string, change: (chunk: Buffer) => Buffer) {
    this.endpoint = `ipc://${path}`;
    this.#server = createServer((client) => {
      const daemon = connect(target.replace("ipc://", ""));
      client.on("data", (chunk) => daemon.write(change(chunk)));
      daemon.on("data", (chunk) => this.losesReplies || client.write(chunk));
      for (const [socket, other] of [
        [client, daemon],
        [daemon, client],
      ] as const) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined);
        socket.on("close", () => other.destroy());
      }
    }).listen(path);
  }

  /** `change` may alter what the client sends. */
  static async start(t: TestContext, target: string, change = (chunk: Buffer): Buffer => chunk): Promise<Relay> {
    const relay = new Relay(join(temporaryDirectory(t), "relay"), target, change);
    t.after(() => {
      relay.cut();
      relay.#server.close();
    });
    await once(relay.#server, "listening");
    return relay;
  }

  /** Cut all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** What a program prints, a module in which `Client` is imported. */
export async function printed(code: string, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const client = JSON.stringify(new URL("../src/index.js", import.meta.url).href);
  const words = ["--input-type=module", "-e", `const { Client } = await import(${client}); ${code}`];
  return (await promisify(execFile)(process.execPath, words, { env })).stdout.trim();
}

/** What a command of `backscroll` prints. */
export function backscroll(...words: string[]): string {
  return execFileSync(BACKSCROLL, words, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
}

/** The process that serves a directory, as its `endpoint.json` says. */
export function daemonPid(dataDir: string): number {
  return (JSON.parse(readFileSync(join(dataDir, "endpoint.json"), "utf8")) as { pid: number }).pid;
}

export async function waitUntil(condition: () => boolean | Promise<boolean>, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    assert(performance.now() < deadline, `waited ${String(timeoutMs)} ms for ${condition.toString()}`);
    await sleep(5);
  }
}

export function messageOf(number: number, content = String(number)): MessageInput {
  return { id: `m${String(number)}`, roomId: "r1", senderId: "ada", content, timestamp: 1_767_225_600_000 + number };
}

/** A request as a fake daemon reads it. */
export interface Request {
  id: string;
  type: string;
  payload: Record<string, unknown>;
  auth?: string;
  traceparent?: string;
  level?: number;
  client?: string;
  n?: number;
  deadlineMs: number;
}

type Answer = (request: Request, socket: Socket, body: string) => object | undefined;

export const GREETING = Buffer.concat([Buffer.from("ff00000000000000007f0300", "hex"), Buffer.from("NULL")], 64);
export const READY = Buffer.from("\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER");

/** A program that speaks ZMTP and answers what a test says. */
export class FakeDaemon {
  readonly bodies: string[] = [];
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(answer: Answer) {
    this.#server = createServer((socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => undefined);
      this.#serve(socket, answer);
    });
  }

  /** Listen on a path, or on a tcp port. */
  static async start(t: TestContext, where: string | number, answer: Answer): Promise<FakeDaemon> {
    const fake = new FakeDaemon(answer);
    t.after(() => {
      fake.close();
    });
    fake.#server.listen(typeof where === "string" ? { path: where } : { port: where, host: "127.0.0.1" });
    await once(fake.#server, "listening");
    return fake;
  }

  get requests(): Request[] {
    return this.bodies.map((body) => JSON.parse(body) as Request);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Cut all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #serve(socket: Socket, answer: Answer): void {
    let received = Buffer.alloc(0);
    let isGreeted = false;
    socket.write(GREETING);
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (!isGreeted) {
        if (received.length < 64) return;
        isGreeted = true;
        received = received.subarray(64);
        socket.write(READY);
      }
      for (;;) {
        const flags = received[0] ?? 0;
        const header = flags & 2 ? 9 : 2;
        if (received.length < header) return;
        const size = flags & 2 ? Number(received.readBigUInt64BE(1)) : (received[1] ?? 0);
        if (received.length < header + size) return;
        const body = received.subarray(header, header + size).toString();
        received = received.subarray(header + size);
        if (!(flags & 4)) this.#answer(socket, body, answer);
      }
    });
  }

  #answer(socket: Socket, body: string, answer: Answer): void {
    this.bodies.push(body);
    const reply = answer(JSON.parse(body) as Request, socket, body);
    if (reply !== undefined) FakeDaemon.send(socket, JSON.stringify(reply));
  }

  static send(socket: Socket, text: string): void {
    const body = Buffer.from(text);
    const header = Buffer.alloc(9, 2);
    header.writeBigUInt64BE(BigInt(body.length), 1);
    socket.write(Buffer.concat([header, body]));
  }
}

export function ok(request: Request, result: unknown = null, seq = 1): object {
  return { id: request.id, ok: true, result, seq };
}

export function refusal(request: Request, code: string, fault = "daemon", retryable = true): object {
  return { id: request.id, ok: false, error: { code, message: `refused: ${code}`, fault, retryable } };
}
