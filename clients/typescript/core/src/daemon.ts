/** Starting: a client of the daemon that serves a directory, which is started if there is none. */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, statSync, truncateSync } from "node:fs";
import type { Socket } from "node:net";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { findAddress, unavailable } from "./address.js";
import { checkedTimeout, Client, type ClientOptions } from "./client.js";
import { type BackscrollError, CallerError } from "./errors.js";
import { UnavailableError } from "./generated/errors.js";
import { LEVEL } from "./generated/operations.js";
import { type DaemonProgram, daemonProgram } from "./sidecar.js";
import { Transport } from "./transport.js";

const START_TIMEOUT_MS = 30_000;
const PAUSE_MS = 50;
const PAUSE_MS_MAX = 1_000;
/** The exit code of a daemon whose directory another one holds. */
const HELD = 3;
const LOG_BYTES_MAX = 8 * 1024 * 1024;
const QUOTED_CHARS_MAX = 2_000;

/** How to open a directory, besides what a client may have. */
export interface OpenOptions extends Omit<ClientOptions, "dataDir" | "endpoint"> {
  /**
   * The program that starts a daemon, and its first arguments. If left out, that of the npm package for this platform,
   * which comes with this one, or else `backscroll` on the `PATH`.
   */
  command?: readonly string[] | undefined;
  /** Further flags of `backscroll serve`. */
  flags?: readonly string[] | undefined;
  /**
   * Let a daemon that is started here end with this process; otherwise it goes on, and others may use it. `false` if
   * left out.
   */
  exitWithParent?: boolean | undefined;
  /** The file for the log of a daemon that is started here: `daemon.log` in the directory if left out. */
  logFile?: string | undefined;
  /** How long to wait until a daemon serves: 30,000 if left out. */
  startTimeoutMs?: number | undefined;
  /** Stops opening: no daemon is started after that, and `open` throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/**
 * A client of the daemon that serves a data directory; starts one if none does. When two programs open a directory at
 * once, both get clients of the same daemon. Throws `UnavailableError` if no daemon starts, as in a directory that cannot
 * be written, or if it speaks a level of the protocol that does not fit, and `InvalidError` or `UnauthenticatedError` if
 * the options cannot be used.
 *
 * The daemon that it starts goes on when this process ends, except with `exitWithParent`. To stop it, send it SIGTERM:
 * `process.kill((await client.health()).pid)`.
 *
 * @example
 * const client = await open("./data");
 */
export async function open(path: string, options: OpenOptions = {}): Promise<Client> {
  const dataDir = resolve(path); // the same for the daemon and the client, whatever the daemon makes of a `~`
  const { command, flags = [], exitWithParent = false, logFile, startTimeoutMs, signal, ...ofClient } = options;
  const start = {
    ...daemonProgram(command),
    flags,
    exitWithParent,
    log: logFile ?? join(dataDir, "daemon.log"),
    timeoutMs: checkedTimeout("startTimeoutMs", startTimeoutMs ?? START_TIMEOUT_MS),
    signal,
  };
  const client = new Client({ ...ofClient, dataDir });
  try {
    await startUnlessServed(dataDir, ofClient.token, start);
    await checkLevel(client, dataDir);
    signal?.throwIfAborted();
  } catch (error) {
    client.close();
    throw error;
  }
  return client;
}

/** How to start a daemon. */
interface Start extends DaemonProgram {
  flags: readonly string[];
  exitWithParent: boolean;
  log: string;
  timeoutMs: number;
  signal: AbortSignal | undefined;
}

async function startUnlessServed(dataDir: string, token: string | undefined, start: Start): Promise<void> {
  const deadline = performance.now() + start.timeoutMs;
  let pauseMs = PAUSE_MS;
  for (let problem = await problemAt(dataDir, token); problem; problem = await problemAt(dataDir, token)) {
    start.signal?.throwIfAborted();
    if (problem instanceof CallerError) throw problem;
    if (performance.now() > deadline) {
      const waited = `no daemon served ${dataDir} within ${String(start.timeoutMs)} ms`;
      throw unavailable(`${waited}: ${problem.message}; the log of one that was started is ${start.log}`);
    }
    const { daemon, logFrom } = startDaemon(dataDir, start);
    const code = await readyOrEnded(daemon, start, deadline);
    if (code === undefined) continue;
    if (code !== HELD) throw ended(start.command, code, readFileSync(start.log).subarray(logFrom));
    await sleep(pauseMs); // another one is starting or stopping there
    pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
  }
}

/**
 * Why no daemon serves a directory; undefined if one does. Its address may be that of a daemon that was killed, and
 * another program, or another directory's daemon, may have its port: so over tcp it has to prove who it is.
 */
function problemAt(dataDir: string, token: string | undefined): Promise<BackscrollError | undefined> {
  return new Promise((tell) => {
    const finish = (problem?: BackscrollError): void => {
      tell(problem);
      transport.close();
    };
    const transport = new Transport(() => findAddress({ dataDir, token }), {
      connected: finish,
      reply: () => undefined,
      lost: finish,
    });
    transport.setActive(true);
  });
}

/** A daemon that starts, and how many bytes its log has of others before it. */
function startDaemon(
  dataDir: string,
  { command, flags, exitWithParent, log }: Start,
): { daemon: ChildProcess; logFrom: number } {
  const [program = "backscroll", ...words] = command;
  const file = openLog(dataDir, log);
  try {
    const ending = exitWithParent ? ["--exit-with-parent"] : [];
    const logFrom = fstatSync(file).size;
    const daemon = spawn(program, [...words, "serve", "--data-dir", dataDir, ...ending, ...flags], {
      stdio: [exitWithParent ? "pipe" : "ignore", "pipe", file],
      detached: !exitWithParent,
    });
    return { daemon, logFrom };
  } finally {
    closeSync(file);
  }
}

/** Open the daemon's log, in a data directory that may not be there yet. */
function openLog(dataDir: string, log: string): number {
  const where = `no daemon can be started in ${dataDir}`;
  orUnavailable(where, "name a directory that this user can write", () =>
    mkdirSync(dataDir, { recursive: true, mode: 0o700 }),
  );
  return orUnavailable(`${where}, because its log cannot be written`, "name another file in `logFile`", () => {
    if ((statSync(log, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX) truncateSync(log);
    return openSync(log, "a", 0o600);
  });
}

/** What `act` returns; throws `UnavailableError` with what went wrong, the system's reason, and what to do. */
function orUnavailable<Result>(problem: string, advice: string, act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    throw new UnavailableError(`${problem}: ${(error as Error).message}; ${advice}`, { code: "unavailable" });
  }
}

/** Wait for the line that a daemon prints when it is ready; its exit code if it ended before. */
async function readyOrEnded(
  daemon: ChildProcess,
  { advice, log }: Start,
  deadline: number,
): Promise<number | undefined> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<number | undefined>((end, reject) => {
      daemon.once("error", (error) => {
        reject(unavailable(`the daemon cannot be started: ${error.message}; ${advice}`));
      });
      daemon.once("exit", (code) => {
        end(code ?? -1);
      });
      // A program around the daemon may print lines of its own before.
      const lines = daemon.stdout && createInterface(daemon.stdout);
      lines?.on("line", (line) => {
        if (isReady(line)) end(undefined);
      });
      timer = setTimeout(() => {
        daemon.kill();
        reject(unavailable(`the daemon was not ready in time, and was stopped; its log is ${log}`));
      }, deadline - performance.now());
    });
  } finally {
    clearTimeout(timer);
    daemon.removeAllListeners();
    daemon.stdout?.destroy();
    (daemon.stdin as Socket | null)?.unref(); // it stays open until this process ends
    daemon.unref();
  }
}

function isReady(line: string): boolean {
  try {
    return (JSON.parse(line) as { event?: unknown } | null)?.event === "ready";
  } catch {
    return false;
  }
}

function ended([program = ""]: readonly string[], code: number, log: Buffer): UnavailableError {
  const said = log.toString().trimEnd().slice(-QUOTED_CHARS_MAX) || "it wrote nothing to its log";
  return new UnavailableError(
    `the daemon (${program}) ended with exit code ${String(code)} before it was ready: ${said}`,
    { code: "unavailable" },
  );
}

/** Say in words that a daemon's level of the protocol does not fit. */
async function checkLevel(client: Client, dataDir: string): Promise<void> {
  const { level, version } = await client.health();
  if (level === LEVEL) return;
  const lowest = level > LEVEL ? (await client.describe())["lowestCompatibleLevel"] : undefined;
  if (level > LEVEL && (typeof lowest !== "number" || lowest <= LEVEL)) return;
  const [older, update] =
    level > LEVEL ? ["this client", "this package"] : ["the daemon", "backscroll, and stop that daemon"];
  throw new UnavailableError(
    `the daemon that serves ${dataDir} (backscroll ${version}) speaks level ${String(level)} of the protocol, and this ` +
      `client was made for level ${String(LEVEL)}: ${older} is too old; update ${update}`,
    { code: "unavailable" },
  );
}
