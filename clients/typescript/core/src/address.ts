/** Where a daemon is, what it takes to be served there, and whether what answers there is that daemon. */

import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { lstatSync, readFileSync, realpathSync } from "node:fs";
import type { NetConnectOpts } from "node:net";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { BackscrollError } from "./errors.js";
import { InvalidError, UnauthenticatedError, UnavailableError } from "./generated/errors.js";
import { LIMITS } from "./generated/limits.js";

const ENDPOINT_FILE = "endpoint.json";
const TOKEN_VARIABLE = "BACKSCROLL_TOKEN";
const HELLO_PREFIX = "backscroll-hello";
const PORT_MAX = 65_535;
const LOOPBACK_HOSTS = new Set(["127.0.0.1", "[::1]", "localhost"]);
/** So much of an error code is quoted: whoever sent it may be anybody. */
const CODE_CHARS_MAX = 64;

/** How to find a daemon: by its data directory, or by its endpoint. */
export interface DaemonLocation {
  /** The data directory of the daemon; where neither is given, `BACKSCROLL_DATA_DIR` or the platform's default. */
  dataDir?: string | undefined;
  /** Its address, such as `ipc:///run/chat/backscroll.sock` or `tcp://127.0.0.1:5555`. */
  endpoint?: string | undefined;
  /** The token for tcp; otherwise `BACKSCROLL_TOKEN`, or the one in the data directory. */
  token?: string | undefined;
}

/** An endpoint, and over tcp the token that its daemon asks for. */
export interface Address {
  endpoint: string;
  token?: string;
}

/** What a ready daemon wrote into its data directory. */
interface Announced {
  endpoints?: unknown[];
  token?: unknown;
}

/**
 * Find the daemon. Its files are read anew each time, because a daemon that was started again may have another address
 * and another token. Throws `UnavailableError` if none is ready, `UnauthenticatedError` if there is no token for it.
 */
export function findAddress({ dataDir, endpoint, token }: DaemonLocation): Address {
  if (endpoint?.startsWith("ipc://")) return { endpoint };
  const directory = dataDir ?? defaultDataDir();
  const announced = readAnnounced(directory);
  const found = endpoint ?? firstEndpoint(announced);
  if (found === undefined) {
    throw unavailable(
      `no daemon is ready in ${directory}: start one with \`backscroll serve --data-dir ${directory}\`, or have \`open\` start it`,
    );
  }
  if (found.startsWith("ipc://")) return { endpoint: found };
  const ofDaemon = lists(announced, found) && typeof announced.token === "string" ? announced.token : undefined;
  const ofVariable = process.env[TOKEN_VARIABLE];
  const sources = endpoint === undefined ? [token, ofDaemon, ofVariable] : [token, ofVariable, ofDaemon];
  const chosen = sources.find((each) => each !== undefined && each !== "");
  if (chosen === undefined) {
    throw new UnauthenticatedError(
      `there is no token for ${found}: name the daemon's data directory, or give a token made by ` +
        `\`backscroll token create\`, as \`token\` or in the environment variable ${TOKEN_VARIABLE}`,
      { code: "unauthenticated" },
    );
  }
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(chosen) || Buffer.byteLength(chosen) > LIMITS.authBytes) {
    throw invalid(
      `the token for ${found} is none: it must be printable text of at most ${String(LIMITS.authBytes)} bytes`,
    );
  }
  return { endpoint: found, token: chosen };
}

/** Where to connect to; throws `InvalidError` if it is no address that this client can use. */
export function targetOf(endpoint: string): NetConnectOpts {
  if (endpoint.startsWith("ipc://") && endpoint.length > "ipc://".length) {
    return { path: endpoint.slice("ipc://".length) };
  }
  const tcp = /^tcp:\/\/(.+):(\d{1,5})$/.exec(endpoint);
  const port = Number(tcp?.[2]);
  if (tcp?.[1] && port >= 1 && port <= PORT_MAX) return { host: tcp[1].replace(/^\[(.*)\]$/, "$1"), port };
  const hint = endpoint.startsWith("curve://")
    ? "this client has no CURVE: use ipc, or tcp on the same machine"
    : "an address is such as tcp://127.0.0.1:5555 or ipc:///PATH";
  throw invalid(`cannot connect to ${JSON.stringify(endpoint)}: ${hint}`);
}

/** The platform's directory for the data of this user, or the one named by `BACKSCROLL_DATA_DIR`. */
export function defaultDataDir(): string {
  const { BACKSCROLL_DATA_DIR: named, XDG_DATA_HOME: xdg, LOCALAPPDATA: local } = process.env;
  if (named) return named.replace(/^~(?=$|\/)/, home);
  if (process.platform === "darwin") return join(home(), "Library", "Application Support", "backscroll");
  if (process.platform === "win32") return join(local ?? join(home(), "AppData", "Local"), "backscroll");
  return join(xdg ? xdg : join(home(), ".local", "share"), "backscroll");
}

/** The user's home directory; throws `InvalidError` if there is none, as in a container that knows no users. */
function home(): string {
  try {
    return homedir();
  } catch {
    throw invalid("this user has no home directory: name a data directory, as `dataDir` or in BACKSCROLL_DATA_DIR");
  }
}

/**
 * The question whose answer proves that the daemon knows a token, before the token is sent: whatever listens on a tcp
 * port may be another program, after a daemon was killed.
 */
export class Greeting {
  readonly #nonce = randomBytes(16).toString("hex");
  readonly #address: Address;
  readonly #token: string;

  constructor(address: Address, token: string) {
    this.#address = address;
    this.#token = token;
  }

  request(): string {
    const payload = { nonce: this.#nonce, ...(this.#tokenName() && { name: this.#tokenName() }) };
    return JSON.stringify({ id: `hello-${this.#nonce}`, type: "hello", payload });
  }

  /** The error for an answer that proves nothing; undefined if it does. */
  problemWith(body: Buffer): BackscrollError | undefined {
    const reply = parsed(body);
    if (this.#isProven(reply["result"])) return undefined;
    const code = (reply["error"] as { code?: unknown } | undefined)?.code;
    const { endpoint } = this.#address;
    if (code === "unauthenticated") {
      const problem = `the daemon at ${endpoint} does not know the token ${JSON.stringify(this.#tokenName())}`;
      return new UnauthenticatedError(
        `${problem}: it was revoked, has expired, or is for another daemon; nothing was sent`,
        { code },
      );
    }
    const answer = typeof code === "string" ? ` and answered ${JSON.stringify(code.slice(0, CODE_CHARS_MAX))}` : "";
    return unavailable(
      `whatever answers at ${endpoint} did not prove that it knows the token${answer}: it is another program, or the ` +
        "token is wrong or for another daemon; nothing was sent",
    );
  }

  /** Whether this is a proof about this token, this connection's nonce, and a daemon that is bound to this port. */
  #isProven(result: unknown): boolean {
    const { proof, endpoints } = (result ?? {}) as { proof?: unknown; endpoints?: unknown };
    if (typeof proof !== "string" || !Array.isArray(endpoints)) return false;
    const texts = endpoints.filter((each) => typeof each === "string");
    const expected = Buffer.from(proofOf(this.#token, this.#nonce, texts));
    const given = Buffer.from(proof);
    return (
      given.length === expected.length &&
      timingSafeEqual(given, expected) &&
      texts.map(portOf).includes(portOf(this.#address.endpoint))
    );
  }

  /** The name in a token such as `bot.q8Jx…`; the start token has none. */
  #tokenName(): string {
    return this.#token.slice(0, Math.max(0, this.#token.lastIndexOf(".")));
  }
}

/** What a daemon that knows a token answers to `hello`, in hex. */
export function proofOf(token: string, nonce: string, endpoints: readonly string[]): string {
  const key = createHash("sha256").update(token).digest();
  return createHmac("sha256", key)
    .update([HELLO_PREFIX, nonce, ...endpoints].join("\n"))
    .digest("hex");
}

/** An `UnavailableError` of the client itself: nothing was sent. */
export function unavailable(message: string): UnavailableError {
  return new UnavailableError(message, { code: "unavailable", retryable: true });
}

/** An `InvalidError` of the client itself; `path` is that of the field which it is about. */
export function invalid(message: string, path?: string): InvalidError {
  return new InvalidError(message, { code: "invalid", details: path === undefined ? undefined : { path } });
}

/** The first endpoint that this client can use, or else one that it cannot. */
function firstEndpoint({ endpoints = [] }: Announced): string | undefined {
  const texts = endpoints.filter((each) => typeof each === "string");
  return texts.find((each) => !each.startsWith("curve://")) ?? texts[0];
}

/** What a ready daemon wrote, which is beside its socket elsewhere if it cannot write into its data directory. */
function readAnnounced(directory: string): Announced {
  const place = runtimeDir(directory);
  const elsewhere = place && isOwn(join(place, "..")) ? readJson(join(place, ENDPOINT_FILE)) : undefined;
  return elsewhere ?? readJson(join(directory, ENDPOINT_FILE)) ?? {};
}

function readJson(file: string): Announced | undefined {
  try {
    const read: unknown = JSON.parse(readFileSync(file, "utf8"));
    return Array.isArray((read as Announced | null)?.endpoints) ? (read as Announced) : undefined;
  } catch {
    return undefined; // it is missing, or being replaced
  }
}

function runtimeDir(directory: string): string | undefined {
  const uid = process.getuid?.();
  if (uid === undefined) return undefined;
  let real = resolve(directory);
  try {
    real = realpathSync(directory);
  } catch {
    // it does not exist yet
  }
  const digest = createHash("sha256").update(real).digest("hex").slice(0, 16);
  const runtime = process.env["XDG_RUNTIME_DIR"];
  return join(runtime ? runtime : tmpdir(), `backscroll-${String(uid)}`, digest);
}

/** Whether a directory belongs to this user: others can make one of any name below that for temporary files. */
function isOwn(directory: string): boolean {
  try {
    const found = lstatSync(directory);
    return found.isDirectory() && found.uid === process.getuid?.();
  } catch {
    return false;
  }
}

function lists(announced: Announced, endpoint: string): boolean {
  return (announced.endpoints ?? []).some((each) => withOneLoopback(String(each)) === withOneLoopback(endpoint));
}

/** The endpoint with the same name for all loopback hosts, which differ only in the port. */
function withOneLoopback(endpoint: string): string {
  const [, transport, host, port] = /^(\w+:\/\/)(.*):(\d+)$/.exec(endpoint) ?? [];
  return transport && host && port && LOOPBACK_HOSTS.has(host) ? `${transport}localhost:${port}` : endpoint;
}

function portOf(endpoint: string): string {
  return endpoint.slice(endpoint.lastIndexOf(":") + 1);
}

function parsed(body: Buffer): Record<string, unknown> {
  try {
    return (JSON.parse(body.toString()) as Record<string, unknown> | null) ?? {};
  } catch {
    return {};
  }
}
