/** The commands that took effect in a database, by whichever tab, in their order. */

import type { CommandRow } from "./layout.js";

/** The commands after one, of those that are kept; `isComplete` unless some before them are not. */
export interface Commands {
  rows: CommandRow[];
  isComplete: boolean;
  /** The last command that there is. */
  head: number;
}

interface Listener {
  /** A command took effect. */
  committed(row: CommandRow): void;
  /** Some that took effect are not kept any more. */
  missed(): void;
}

/**
 * Follows the commands of a database. Each tab posts its own on a channel, and reads from the database what it missed:
 * a post that came out of order, or none because the tab was frozen.
 */
export class Tail {
  readonly #channel: BroadcastChannel | undefined;
  readonly #read: (after: number) => Promise<Commands>;
  readonly #listener: Listener;
  readonly #wake = (): void => void this.catchUp();
  #seen: number;
  #reading: Promise<void> | undefined;
  #isStale = false;
  #isClosed = false;

  /** `seen` is the last command that the listener need not be told of. */
  constructor(name: string, seen: number, read: (after: number) => Promise<Commands>, listener: Listener) {
    this.#seen = seen;
    this.#read = read;
    this.#listener = listener;
    if (typeof BroadcastChannel !== "undefined") {
      this.#channel = new BroadcastChannel(name);
      this.#channel.onmessage = ({ data }: MessageEvent<CommandRow>) => {
        this.#note(data);
      };
    }
    for (const [target, event] of wakeUps()) target.addEventListener(event, this.#wake);
  }

  /** The last command that the listener was told of. */
  get seen(): number {
    return this.#seen;
  }

  /** This tab committed a command. */
  committed(row: CommandRow): void {
    this.#note(row);
    if (!this.#isClosed) this.#channel?.postMessage(row);
  }

  /** Tell of all commands until now. */
  catchUp(): Promise<void> {
    this.#isStale = true;
    this.#reading ??= this.#readAll();
    return this.#reading;
  }

  close(): void {
    this.#isClosed = true;
    this.#channel?.close();
    for (const [target, event] of wakeUps()) target.removeEventListener(event, this.#wake);
  }

  #note(row: CommandRow): void {
    if (this.#isClosed || row.seq <= this.#seen) return;
    if (row.seq === this.#seen + 1 && this.#reading === undefined) this.#tell(row);
    else void this.catchUp();
  }

  async #readAll(): Promise<void> {
    try {
      while (this.#isStale && !this.#isClosed) {
        this.#isStale = false;
        const { rows, isComplete, head } = await this.#read(this.#seen);
        if (!isComplete) {
          this.#miss(head);
          continue;
        }
        for (const row of rows) this.#tell(row);
        if (this.#seen < head) this.#isStale = true;
      }
    } catch {
      // the connection was lost: whoever opens it again goes on from `seen`
    } finally {
      this.#reading = undefined; // at once, or a command that is noted now would not be read
    }
  }

  #miss(head: number): void {
    if (this.#isClosed) return;
    this.#seen = head;
    this.#listener.missed();
  }

  #tell(row: CommandRow): void {
    if (this.#isClosed) return;
    this.#seen = row.seq;
    this.#listener.committed(row);
  }
}

/** When a tab goes on that may have been frozen. */
function wakeUps(): [EventTarget, string][] {
  if (typeof document === "undefined") return [];
  return [
    [document, "visibilitychange"],
    [document, "resume"],
    [globalThis, "pageshow"],
  ];
}
