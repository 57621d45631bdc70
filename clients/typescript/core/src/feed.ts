/**
 * Following the feed: what to ask next, and what to give the caller.
 *
 * One question is asked at a time, and only while the caller waits for the next item: nothing is queued for a slow
 * caller. The first question shows whether a daemon answers: its errors are thrown. From then on the iterators wait for
 * the daemon, however long it is away. Nothing is lost with a connection, because the daemon pushes nothing: whatever
 * happened, the next question has the same cursor.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import type { Client, RequestOptions } from "./client.js";
import { BackscrollError, FeedGapError, NoReplyError } from "./errors.js";
import type { OperationName, Payloads, Results } from "./generated/operations.js";
import type { GetChanges } from "./generated/payloads.js";
import type { ChangePage, ItemChange } from "./generated/records.js";
import type { Answer } from "./pending.js";
import { readsOf } from "./reads.js";

/** How long one question waits for a change. */
const WAIT_MS = 30_000;
const PAUSE_MS = 20;
const PAUSE_MS_MAX = 1_000;

/** What holds for an iterator over what changes. */
export interface WatchOptions {
  /** Stops waiting: the iterator throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** Where to begin, and what to leave out. */
export interface ChangesOptions extends WatchOptions {
  /** The cursor to begin after; `"now"` for the end of the feed. */
  after?: string | undefined;
  /** Only what is in these rooms. */
  rooms?: string[] | undefined;
  /** Only these kinds of items. */
  nouns?: NonNullable<GetChanges["nouns"]> | undefined;
  /** `false` for which items changed, and not what they are. */
  values?: boolean | undefined;
  /** About how many changes are read at once. */
  limit?: number | undefined;
}

/** A result of a watched query, and the number of the scope's commit that it reflects. */
export interface Watched<Result> {
  result: Result;
  seq: number;
  /** The scope has another history than at the result before, and may have fewer commits. */
  gap: boolean;
}

/** Sends a query with what holds for the iterator. */
type Ask = <Name extends OperationName>(type: Name, payload: Payloads[Name]) => Promise<Answer<Results[Name]>>;
type Steps<Item> = AsyncGenerator<Item, void, undefined>;

/** An iterator that follows a scope, for `for await`. */
export class FeedIterator<Item> implements AsyncIterableIterator<Item> {
  readonly #steps: Steps<Item>;
  readonly #stopping = new AbortController();
  readonly #signal: AbortSignal | undefined;
  readonly #closing: AbortSignal;

  /** @internal Made by `watch` and `changes`. */
  constructor(
    client: Client,
    signal: AbortSignal | undefined,
    closing: AbortSignal,
    steps: (ask: Asking) => Steps<Item>,
  ) {
    this.#signal = signal;
    this.#closing = closing;
    const signals = [this.#stopping.signal, closing, ...(signal ? [signal] : [])];
    this.#steps = steps(new Asking(client, AbortSignal.any(signals)));
  }

  /** The next item; done when the iterator or the client was closed. */
  async next(): Promise<IteratorResult<Item, void>> {
    try {
      return await this.#steps.next();
    } catch (error) {
      if (this.#stopping.signal.aborted || this.#closing.aborted) return { done: true, value: undefined };
      this.#signal?.throwIfAborted();
      throw error;
    }
  }

  /** End the iteration, also while an item is awaited. */
  async return(): Promise<IteratorResult<Item, void>> {
    this.#stopping.abort();
    return this.#steps.return();
  }

  /** The iterator itself, for `for await`. */
  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** The changes of a scope, one after the other, for ever; made by `Client.changes`. */
export class Changes extends FeedIterator<ItemChange> {
  readonly #position: Position;

  /** @internal Made by `changes`. */
  constructor(client: Client, { signal, ...query }: ChangesOptions, closing: AbortSignal) {
    const position: Position = { cursor: query.after === "now" ? undefined : query.after, isAtPageEnd: true };
    super(client, signal, closing, (asking) => changeSteps(asking, query, position));
    this.#position = position;
  }

  /**
   * Where to begin the next time: after the latest page of changes of which all were given out. Undefined at the
   * beginning of the feed, and after `"now"` until its end was found.
   */
  get cursor(): string | undefined {
    return this.#position.cursor;
  }

  /** Whether `cursor` is after the latest change, and not after one before it. */
  get atPageEnd(): boolean {
    return this.#position.isAtPageEnd;
  }
}

interface Position {
  cursor: string | undefined;
  isAtPageEnd: boolean;
}

/** Asks for an iterator; longer pauses follow questions that brought nothing, until one does. */
class Asking {
  #pauseMs = PAUSE_MS;
  readonly #options: RequestOptions;
  readonly #client: Client;

  constructor(client: Client, signal: AbortSignal) {
    this.#client = client;
    this.#options = { signal };
  }

  /** The answer to a query, whose errors are thrown. */
  readonly once: Ask = (type, payload) => this.#client.answer(type, payload, this.#options);

  /** The answer to a query, however long the daemon is away; throws an error that waiting does not end. */
  readonly ask: Ask = async (type, payload) => {
    let pauseMs = PAUSE_MS;
    for (;;) {
      try {
        return await this.once(type, payload);
      } catch (error) {
        if (!(error instanceof BackscrollError && (error.retryable || error instanceof NoReplyError))) throw error;
      }
      await this.#sleep(pauseMs);
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
    }
  };

  /** The cursor at the end of the feed. */
  async now(): Promise<string> {
    return (await this.ask("get-changes", { after: "now" })).result.cursor;
  }

  /** The page after a cursor. Where an empty one came long before its time, the daemon has too many that wait. */
  async nextPage(query: GetChanges, cursor: string | undefined): Promise<ChangePage> {
    const begun = performance.now();
    const after = cursor === undefined ? {} : { after: cursor };
    const { result: page } = await this.ask("get-changes", { ...query, ...after, waitMs: WAIT_MS });
    const cameEarly = performance.now() - begun <= WAIT_MS / 2;
    if (cameEarly && page.changes.length === 0 && !page.more && !page.gap) {
      await this.#sleep(this.#pauseMs);
      this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MS_MAX);
    } else this.#pauseMs = PAUSE_MS;
    return page;
  }

  async #sleep(ms: number): Promise<void> {
    await sleep(ms, undefined, this.#options.signal ? { signal: this.#options.signal } : {});
  }
}

async function* changeSteps(
  asking: Asking,
  { after, ...options }: ChangesOptions,
  position: Position,
): Steps<ItemChange> {
  const query = withoutUndefined(options);
  await asking.once("ping", {});
  if (after === "now") position.cursor = await asking.now();
  for (;;) {
    const page = await asking.nextPage(query, position.cursor);
    if (page.gap) throw new FeedGapError(page.cursor);
    for (const [index, change] of page.changes.entries()) {
      position.isAtPageEnd = index === page.changes.length - 1;
      if (position.isAtPageEnd) position.cursor = page.cursor;
      yield change;
    }
    position.cursor = page.cursor;
  }
}

/** The results of a query: the first at once, and others when it may have changed and does differ. */
export async function* watchSteps<Name extends OperationName>(
  asking: Asking,
  type: Name,
  payload: Payloads[Name],
): Steps<Watched<Results[Name]>> {
  const question = { values: false, ...readsOf(type, payload) };
  await asking.once("ping", {});
  let cursor = await asking.now(); // first, so that what changes while the query is answered is asked for afterwards
  let given: Watched<Results[Name]> | undefined;
  let newest = 0;
  let gap = false;
  for (;;) {
    const { result, seq } = await asking.ask(type, payload);
    gap ||= seq < newest; // requests are answered in order, so only another history has a lower one
    newest = seq;
    if (gap || given === undefined || !isDeepStrictEqual(given.result, result)) {
      given = { result, seq, gap };
      yield given;
    }
    [cursor, gap] = await changed(asking, question, cursor);
  }
}

/** Wait for a change; the cursor to go on with, which is older than any later result, and whether there is a gap. */
async function changed(asking: Asking, question: GetChanges, cursor: string): Promise<[string, boolean]> {
  for (;;) {
    const page = await asking.nextPage(question, cursor);
    cursor = page.cursor;
    if (page.gap) return [cursor, true];
    if (page.more) return jump(asking, question, cursor);
    if (page.changes.length > 0) return [cursor, false];
  }
}

/** Leave out the changes that there are until now. That the old cursor still fits shows that this is no gap. */
async function jump(asking: Asking, question: GetChanges, cursor: string): Promise<[string, boolean]> {
  const now = await asking.now();
  const { result: page } = await asking.ask("get-changes", { ...question, after: cursor, limit: 1 });
  return page.gap ? [page.cursor, true] : [now, false];
}

function withoutUndefined(options: ChangesOptions): GetChanges {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
