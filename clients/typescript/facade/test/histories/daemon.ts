/** A daemon for histories, and what runs them there. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "backscroll";
import type { Store } from "backscroll/language";
import type { Runner } from "./compare.js";
import { run } from "./steps.js";

const BACKSCROLL = process.env["BACKSCROLL"] ?? "backscroll";
const TIMEOUT_MS = 60_000;

/** A daemon with a directory of its own, until `stop`. */
export class Daemon {
  readonly dataDir = mkdtempSync(join(tmpdir(), "backscroll-histories-"));
  readonly #process: ChildProcess;
  readonly #clients: Client[] = [];
  readonly #idle: Client[] = [];
  /** How often a connection was lost. */
  #lost = 0;

  private constructor() {
    const words = ["serve", "--data-dir", this.dataDir, "--exit-with-parent"];
    this.#process = spawn(BACKSCROLL, words, { stdio: ["pipe", "pipe", "ignore"] });
  }

  static async start(): Promise<Daemon> {
    const daemon = new Daemon();
    if (daemon.#process.stdout) await once(daemon.#process.stdout, "data");
    return daemon;
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.close();
    this.#process.kill();
    await once(this.#process, "exit");
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  /**
   * Runs each history in an empty scope; `wrap` may change the store that is run on. Scopes are cleared and used again,
   * because to make one takes longer than a history. When a connection was lost, as on a machine that is too busy, a
   * command that was refused may be `superseded` when it is sent again; then the history is played anew.
   */
  runner(wrap = (store: Store): Store => store): Runner {
    return async (history, pools) => {
      for (;;) {
        const client = this.#idle.pop() ?? this.#newClient();
        const lost = this.#lost;
        const outcomes = await run(wrap(storeOf(client)), history, pools);
        await client.clearAllData();
        this.#idle.push(client);
        if (lost === this.#lost) return outcomes;
      }
    };
  }

  #newClient(): Client {
    const scope = `scope-${String(this.#clients.length)}`;
    const client = new Client({
      dataDir: this.dataDir,
      scope,
      timeoutMs: TIMEOUT_MS,
      onConnection: (problem) => {
        if (problem !== undefined) this.#lost += 1;
      },
    });
    this.#clients.push(client);
    return client;
  }
}

/** A client's scope as a store, without its events. */
function storeOf(client: Client): Store {
  return {
    switchScope: () => Promise.resolve(),
    command: ({ type, payload }) => client.call(type, payload),
    query: ({ type, payload }) => client.call(type, payload),
    subscribe: () => () => undefined,
  };
}
