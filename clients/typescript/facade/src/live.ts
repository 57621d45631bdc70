/** Live queries: a result, asked for again when it may have changed. */

import { dequal } from "dequal";
import { BackscrollError, type ItemChange, mayChange, NoReplyError, type Reads } from "backscroll/language";
import { type Readable, State } from "./readable.js";

/** The pause before a query whose daemon or browser could not answer is asked again, in milliseconds. */
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 30_000;

/** What a live query needs of the database that made it. */
export interface Source<Result> {
  /** Ask the query once. */
  ask(): Promise<Result>;
  /** The query has its first subscriber: it is to be told what happens, and whether an account is open now. */
  join(query: LiveQuery<Result>): boolean;
  /** The last subscriber is gone. */
  leave(query: LiveQuery<Result>): void;
}

/**
 * The result of a query, now and whenever it has changed: `undefined` until there is one, while no account is open, and
 * while nobody is subscribed. Nothing is asked without a subscriber.
 *
 * Only one request is on its way at a time, and a result is never older than the one before it. A result that is deeply
 * equal to the one before is not set: the value stays the same object, which must not be changed. Two things are not
 * noticed: that only time passes, so that a ban runs out, and reactions and attachments of a message that is not stored
 * yet.
 */
export class LiveQuery<Result> implements Readable<Result | undefined> {
  readonly #value = new State<Result | undefined>(undefined);
  readonly #error = new State<Error | undefined>(undefined);
  readonly #source: Source<Result>;
  readonly #reads: Reads;
  /** Stands for the time from one `start` to the next `stop`; what was asked before it is ignored. */
  #run: object | undefined;
  #isAsking = false;
  #isStale = false;
  #retrying: ReturnType<typeof setTimeout> | undefined;
  #retryMs = RETRY_MS;

  /** @internal Made by `DatabaseService.watch`. */
  constructor(source: Source<Result>, reads: Reads) {
    this.#source = source;
    this.#reads = reads;
  }

  /** The latest result. */
  get value(): Result | undefined {
    return this.#value.value;
  }

  /**
   * Why the latest question has no result; the value is the one from before. It is asked again when that may help. To
   * subscribe to this alone asks nothing.
   */
  get error(): Readable<Error | undefined> {
    return this.#error;
  }

  /** Calls the listener after each new result, until the returned function is called; the first one asks the query. */
  subscribe(listener: () => void): () => void {
    const unsubscribe = this.#value.subscribe(listener);
    if (this.#value.listeners === 1 && this.#source.join(this)) this.start();
    return () => {
      const before = this.#value.listeners;
      unsubscribe();
      if (before > 0 && this.#value.listeners === 0) {
        this.#source.leave(this);
        this.stop().forEach((tell) => {
          tell();
        });
      }
    };
  }

  /** @internal An account is open: ask. */
  start(): void {
    this.#run = {};
    this.#ask();
  }

  /** @internal No account is open, or nobody is subscribed: forget everything. The caller tells the listeners. */
  stop(): (() => void)[] {
    this.#run = undefined;
    this.#isAsking = this.#isStale = false;
    this.#forgetRetry();
    return [this.#value.assign(undefined), this.#error.assign(undefined)];
  }

  /** @internal These items changed. */
  changed(changes: readonly ItemChange[]): void {
    if (changes.some((change) => mayChange(this.#reads, change))) this.#ask();
  }

  /** @internal Anything may have changed. */
  changedAll(): void {
    this.#ask();
  }

  /** @internal The daemon answers again. */
  connected(): void {
    if (this.#error.value !== undefined || this.#isAsking) this.#ask();
  }

  /** Ask, or if that is being done already, ask again afterwards. */
  #ask(): void {
    const run = this.#run;
    if (run === undefined) return;
    if (this.#isAsking) {
      this.#isStale = true;
      return;
    }
    this.#isAsking = true;
    clearTimeout(this.#retrying);
    this.#source.ask().then(
      (result) => {
        if (run === this.#run) this.#answered(result);
      },
      (error: unknown) => {
        if (run === this.#run) this.#failed(error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  #answered(result: Result): void {
    this.#forgetRetry();
    const isNew = !dequal(result, this.#value.value);
    this.#settle([this.#value.assign(isNew ? result : this.#value.value), this.#error.assign(undefined)]);
  }

  #failed(error: Error): void {
    if (isTransient(error)) {
      this.#retrying = setTimeout(() => {
        this.#ask();
      }, this.#retryMs);
      this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX);
    }
    this.#settle([this.#error.assign(error)]);
  }

  /** The question has its outcome. A listener may end everything, or cause the next question. */
  #settle(tellings: (() => void)[]): void {
    const run = this.#run;
    this.#isAsking = false;
    for (const tell of tellings) tell();
    if (run === this.#run && this.#isStale) {
      this.#isStale = false;
      this.#ask();
    }
  }

  #forgetRetry(): void {
    clearTimeout(this.#retrying);
    this.#retryMs = RETRY_MS;
  }
}

/** Whether asking again may help. */
function isTransient(error: Error): boolean {
  return error instanceof BackscrollError && (error.retryable || error instanceof NoReplyError);
}
