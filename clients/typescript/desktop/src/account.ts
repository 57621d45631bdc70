/** One account that windows have open: its client, and the one follower of its feed that they share. */

import { setTimeout as sleep } from "node:timers/promises";
import { type BackscrollError, Client, type ClientOptions, FeedGapError, LIMITS } from "backscroll";
import type { ItemChange, StoreEvent } from "backscroll/language";

/** How long to wait before the feed is followed again, after it could not be read. */
const PAUSE_MS = 1_000;

export type Listener = (event: StoreEvent) => void;

export class Account {
  readonly client: Client;
  /** Fulfilled when the follower has its place in the feed: what is asked later is newer than what it pushes first. */
  readonly ready: Promise<void>;
  readonly #listeners = new Set<Listener>();
  readonly #closing = new AbortController();
  #problem: BackscrollError | undefined;

  /** `onLost` is called while there is no daemon, at least once a second. */
  constructor(options: ClientOptions, onLost: () => void) {
    this.client = new Client({
      ...options,
      onConnection: (problem) => {
        if (this.#closing.signal.aborted) return;
        const changed = (problem === undefined) !== (this.#problem === undefined);
        this.#problem = problem;
        if (changed) this.#emit(problem === undefined ? { type: "connected" } : disconnected(problem));
        if (problem !== undefined) onLost();
      },
    });
    this.ready = this.client.getChanges({ after: "now" }).then(({ cursor }) => {
      void this.#follow(cursor);
    });
  }

  get size(): number {
    return this.#listeners.size;
  }

  /** Tell a listener what changes, and first of all whether the daemon does not answer now. */
  add(listener: Listener): void {
    this.#listeners.add(listener);
    if (this.#problem !== undefined) listener(disconnected(this.#problem));
  }

  remove(listener: Listener): void {
    this.#listeners.delete(listener);
  }

  close(): void {
    this.#closing.abort();
    this.client.close();
  }

  #emit(event: StoreEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Push what changes after a cursor, a page at once, until the account is closed. */
  async #follow(cursor: string): Promise<void> {
    let after = cursor;
    while (!this.#closing.signal.aborted) {
      const changes = this.client.changes({ after, values: false, limit: LIMITS.pageItems });
      let page: ItemChange[] = [];
      try {
        for await (const change of changes) {
          page.push(change);
          if (!changes.atPageEnd) continue;
          this.#emit({ type: "changed", changes: page });
          page = [];
        }
      } catch (error) {
        if (error instanceof FeedGapError) {
          after = error.cursor;
          this.#emit({ type: "gap" });
          continue;
        }
        after = changes.cursor ?? after;
        await sleep(PAUSE_MS, undefined, { signal: this.#closing.signal }).catch(() => undefined);
      }
    }
  }
}

function disconnected({ code, message }: BackscrollError): StoreEvent {
  return { type: "disconnected", problem: { code, message } };
}
