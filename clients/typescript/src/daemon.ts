/** Starting: a client of the daemon that serves a directory, which is started if there is none. */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, statSync, truncateSync } from "node:fs";
import type { Socket } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { announcedEndpoint, targetOf, unavailable } from "./address.js";
import { Client, type ClientOptions } from "./client.js";
import { UnavailableError } from "./generated/errors.js";
import { LEVEL } from "./generated/operations.js";
import { daemonProgram } from "./sidecar.js";
import { ZmtpConnection } from "./zmtp.js";

const START_TIMEOUT_MS = 30_000;
const PROBE_MS = 1_000;
const PAUSE_MS = 50;
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
}

/**
 * A client of the daemon that serves a data directory; starts one if none does. When two programs open a directory at
 * once, both get clients of the same daemon. Throws `UnavailableError` if no daemon starts, as in a directory that cannot
 * be written, or if it speaks a level of the protocol that does not fit.
 *
 * The daemon that it starts goes on when this process ends, except with `exitWithParent`. To stop it, send it SIGTERM:
 * `process.kill((await client.health()).pid)`.
 *
 * @example
 * const client = await open("./data");
 */
export async function open(path: string, options: OpenOptions = {}): Promise<Client> {
  const dataDir = resolve(path); // the same for the daemon and the client, whatever the daemon makes of a `~`
  const { command, flags, exitWithParent, logFile, startTimeoutMs = START_TIMEOUT_MS, ...ofClient } = options;
  const deadline = performance.now() + startTimeoutMs;
  const log = logFile ?? join(dataDir, "daemon.log");
  const program = daemonProgram(command);
  inDirectory(dataDir, () => mkdirSync(dataDir, { recursive: true }));
  while (!(await answers(dataDir))) {
    if (performance.now() > deadline) {
      throw unavailable(`no daemon served ${dataDir} within ${String(startTimeoutMs)} ms; its log is ${log}`);
    }
    const started = inDirectory(dataDir, () =>
      startDaemon(program.command, dataDir, flags ?? [], log, exitWithParent ?? false),
    );
    const code = await readyOrEnded(started, program.advice, log, deadline);
    if (code !== undefined && code !== HELD) throw ended(program.command, code, log);
    if (code === HELD) await sleep(PAUSE_MS); // another one is starting or stopping there
  }
  const client = new Client({ ...ofClient, dataDir });
  try {
    await checkLevel(client, dataDir);
  } catch (error) {
    client.close();
    throw error;
  }
  return client;
}

/** What takes a directory and a log that can be written. */
function inDirectory<Result>(dataDir: string, act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    throw new UnavailableError(
      `no daemon can be started in ${dataDir}: ${(error as Error).message}; name a directory that this user can write`,
      { code: "unavailable" },
    );
  }
}

/** Whether a daemon accepts a connection at the address in a directory, which may be that of one that was killed. */
function answers(dataDir: string): Promise<boolean> {
  return new Promise((resolve) => {
    const endpoint = announcedEndpoint(dataDir);
    if (endpoint === undefined) {
      resolve(false);
      return;
    }
    const connection = new ZmtpConnection(targetOf(endpoint), {
      ready: () => {
        resolve(true);
        connection.close("it answers");
      },
      message: () => undefined,
      closed: () => {
        clearTimeout(timer);
        resolve(false);
      },
    });
    const timer = setTimeout(() => {
      connection.close("it does not answer");
    }, PROBE_MS);
  });
}

function startDaemon(
  [program = "backscroll", ...words]: readonly string[],
  dataDir: string,
  flags: readonly string[],
  logFile: string,
  exitWithParent: boolean,
): ChildProcess {
  if ((statSync(logFile, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX) truncateSync(logFile);
  const log = openSync(logFile, "a", 0o600);
  try {
    const ending = exitWithParent ? ["--exit-with-parent"] : [];
    return spawn(program, [...words, "serve", "--data-dir", dataDir, ...ending, ...flags], {
      stdio: [exitWithParent ? "pipe" : "ignore", "pipe", log],
      detached: !exitWithParent,
    });
  } finally {
    closeSync(log);
  }
}

/** Wait for the line that a daemon prints when it is ready; its exit code if it ended before. */
async function readyOrEnded(
  daemon: ChildProcess,
  advice: string,
  logFile: string,
  deadline: number,
): Promise<number | undefined> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<number | undefined>((resolve, reject) => {
      daemon.once("error", (error) => {
        reject(unavailable(`the daemon cannot be started: ${error.message}; ${advice}`));
      });
      daemon.once("exit", (code) => {
        resolve(code ?? -1);
      });
      daemon.stdout?.once("data", () => {
        resolve(undefined);
      });
      timer = setTimeout(() => {
        daemon.kill();
        reject(unavailable(`the daemon was not ready in time, and was stopped; its log is ${logFile}`));
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

function ended([program = ""]: readonly string[], code: number, logFile: string): UnavailableError {
  const said = readFileSync(logFile, "utf8").trimEnd().slice(-QUOTED_CHARS_MAX);
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
