/** Keeps a daemon running: finds or starts it, and starts it again when it died. */

import { setTimeout as sleep } from "node:timers/promises";
import { open, type OpenOptions } from "backscroll";

const PAUSE_MS = 50;
const PAUSE_MS_MAX = 5_000;
/** A daemon that served for so long did not die of its start, so that the next one need not wait. */
const STABLE_MS = 1_000;

export class Supervisor {
  readonly #dataDir: string;
  readonly #options: OpenOptions;
  readonly #onProblem: (problem: unknown) => void;
  readonly #closing = new AbortController();
  #restarting: Promise<void> | undefined;
  #startedAt = 0;
  #pauseMs = PAUSE_MS;

  constructor(dataDir: string, options: OpenOptions, onProblem: (problem: unknown) => void) {
    this.#dataDir = dataDir;
    this.#options = options;
    this.#onProblem = onProblem;
  }

  /** Find or start the daemon. */
  async start(): Promise<void> {
    const client = await open(this.#dataDir, { ...this.#options, signal: this.#closing.signal });
    client.close();
    this.#startedAt = performance.now();
  }

  /** There is no daemon: start it, if that is not being done already, and try until there is one. */
  restart(): void {
    if (this.#closing.signal.aborted) return;
    this.#restarting ??= this.#restart().finally(() => {
      this.#restarting = undefined;
    });
  }

  /** Fulfils when nothing is being started any more; nothing is from then on. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#restarting;
  }

  async #restart(): Promise<void> {
    const { signal } = this.#closing;
    if (performance.now() - this.#startedAt >= STABLE_MS) this.#pauseMs = PAUSE_MS;
    for (;;) {
      try {
        await sleep(this.#pauseMs, undefined, { signal });
        this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MS_MAX);
        await this.start();
        return;
      } catch (problem) {
        if (this.#closing.signal.aborted) return;
        this.#onProblem(problem);
      }
    }
  }
}
