/** The database of one account while it is open: requests one after the other, and what tells of changes. */

import type { BackscrollError, ChangePage, GetChanges, StoreEvent } from "backscroll/language";
import { openDatabase } from "./database.js";
import { asStoreError, unavailable } from "./errors.js";
import { type CommandRow, type Database, STORES, type Writes } from "./layout.js";
import { randomId } from "./migrations.js";
import { historyOf, isNothingNew, itemChange } from "./operations/feed.js";
import { COMMANDS, QUERIES } from "./operations/index.js";
import { type Commands, Tail } from "./tabs.js";
import type { Known } from "./validate.js";

/** So many commands are kept for the feed, and a few more. */
const KEPT_COMMANDS = 10_000;
/** So many older ones are deleted at a time. */
const DROPPED_AT_ONCE = 100;
const READ_AT_ONCE = 500;

/** What does not depend on the account. */
export interface AccountOptions {
  /** How long to wait for other tabs that use an older version of the database, in milliseconds. */
  readonly blockedMs: number;
  readonly tell: (event: StoreEvent) => void;
}

/** A connection, and what follows the changes that are committed by it and by others. */
interface Connection {
  readonly database: Database;
  readonly tail: Tail;
}

export class Account {
  readonly #name: string;
  readonly #options: AccountOptions;
  readonly #session = randomId();
  readonly #running = new Set<Promise<unknown>>();
  readonly #waiting = new Set<() => void>();
  #connection: Promise<Connection> | undefined;
  #history: string | undefined;
  #problem: BackscrollError | undefined;

  /** Begins to open the database of this name. */
  constructor(name: string, options: AccountOptions) {
    this.#name = name;
    this.#options = options;
  }

  /** Wait until the database is open. */
  async open(): Promise<void> {
    await this.#run(() => Promise.resolve());
  }

  command(type: Known, payload: object): Promise<unknown> {
    return this.#run(({ database, tail }) => this.#execute(type, payload, database, tail));
  }

  async query(type: Known, payload: object): Promise<unknown> {
    if (type !== "get-changes") return this.#run(({ database }) => this.#ask(type, payload, database));
    return this.#changes(payload);
  }

  /** Finish what was called, and close the database. What waits is rejected, and nothing is told any more. */
  async close(): Promise<void> {
    this.#problem ??= unavailable("the account was closed: another one may be open now");
    this.#wake();
    const connection = await this.#connection?.catch(() => undefined);
    connection?.tail.close();
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
    connection?.database.close();
  }

  /** Do something with the connection. In the order of the calls, because transactions begin in this order. */
  async #run<Result>(act: (connection: Connection) => Promise<Result>): Promise<Result> {
    if (this.#problem !== undefined) throw this.#problem;
    this.#connection ??= this.#connect();
    const running = this.#connection.then(act);
    this.#running.add(running);
    try {
      return await running;
    } catch (error) {
      throw asStoreError(error);
    } finally {
      this.#running.delete(running);
    }
  }

  async #connect(): Promise<Connection> {
    try {
      const database = await openDatabase(this.#name, this.#options.blockedMs, {
        superseded: () => {
          this.#supersede();
        },
        lost: () => {
          this.#lose();
        },
      });
      const tx = database.transaction(STORES);
      const { id, seq } = await historyOf({ tx, now: 0 });
      if (this.#history !== undefined && this.#history !== id) this.#tell({ type: "gap" });
      this.#history = id;
      return { database, tail: this.#follow(database, id, seq) };
    } catch (error) {
      this.#connection = undefined; // the next request tries again
      throw error;
    }
  }

  #follow(database: Database, history: string, seq: number): Tail {
    return new Tail(`${this.#name} ${history}`, seq, (after) => commandsAfter(after, database), {
      committed: (row) => {
        this.#wake();
        const changes = row.changes.map((each) => itemChange(row, each));
        if (changes.length > 0) this.#tell({ type: "changed", changes });
      },
      missed: () => {
        this.#wake();
        this.#tell({ type: "gap" });
      },
    });
  }

  #supersede(): void {
    const problem = "a later version of this application is open in another tab: reload this page";
    this.#problem = unavailable(problem);
    this.#drop();
    this.#tell({ type: "disconnected", problem: { code: this.#problem.code, message: problem } });
  }

  #lose(): void {
    this.#drop();
    this.#tell({ type: "gap" });
  }

  #drop(): void {
    void this.#connection?.then(({ tail }) => {
      tail.close();
    });
    this.#connection = undefined;
    this.#wake();
  }

  #tell(event: StoreEvent): void {
    this.#options.tell(event);
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
  }

  async #execute(type: Known, payload: object, database: Database, tail: Tail): Promise<unknown> {
    const tx = database.transaction(STORES, "readwrite", { durability: "strict" });
    tx.done.catch(() => undefined); // it is awaited below, unless the command fails before
    const work: Writes = { tx, now: Date.now(), changes: [] };
    const handler = COMMANDS[type];
    try {
      const result = await handler?.(payload as never, work);
      const row = await this.#log(work);
      await tx.done;
      tail.committed(row);
      return result;
    } catch (error) {
      abort(tx);
      throw error;
    }
  }

  /** Write what a command changed, under the next number. */
  async #log({ tx, now, changes }: Writes): Promise<CommandRow> {
    const history = await historyOf({ tx, now });
    const seq = history.seq + 1;
    const row = { seq, at: now, requestId: `${this.#session}-${String(seq)}`, changes };
    const commands = tx.objectStore("commands");
    let { from } = history;
    if (seq - from >= KEPT_COMMANDS + DROPPED_AT_ONCE) {
      from = Math.max(from, seq - KEPT_COMMANDS + 1);
      await commands.delete(IDBKeyRange.upperBound(from, true));
    }
    await Promise.all([commands.put(row), tx.objectStore("meta").put({ ...history, seq, from })]);
    return row;
  }

  async #ask(type: Known, payload: object, database: Database): Promise<unknown> {
    const tx = database.transaction(STORES);
    tx.done.catch(() => undefined);
    return QUERIES[type]?.(payload as never, { tx, now: Date.now() });
  }

  /** The changes after a cursor; where there are none, what comes within the time that the query may wait. */
  async #changes(query: GetChanges): Promise<unknown> {
    const deadline = performance.now() + (query.waitMs ?? 0);
    for (;;) {
      const { isWoken, forget } = this.#nextCommit(); // before the page is read, or what comes meanwhile would be missed
      try {
        const page = await this.#run(({ database }) => this.#ask("get-changes", query, database));
        const left = deadline - performance.now();
        if (left <= 0 || !isNothingNew(query, page as ChangePage)) return page;
        if (!(await isWoken(left))) return page;
      } finally {
        forget();
      }
    }
  }

  /** Something to wait with: whether a command took effect, within some milliseconds, since this was called. */
  #nextCommit(): { isWoken: (ms: number) => Promise<boolean>; forget: () => void } {
    let resolve: (isWoken: boolean) => void = () => undefined;
    const promise = new Promise<boolean>((settle) => (resolve = settle));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const wake = (): void => {
      resolve(true);
    };
    const isWoken = (ms: number): Promise<boolean> => {
      timer = setTimeout(resolve, ms, false);
      return promise;
    };
    const forget = (): void => {
      clearTimeout(timer);
      this.#waiting.delete(wake);
    };
    this.#waiting.add(wake);
    return { isWoken, forget };
  }
}

async function commandsAfter(after: number, database: Database): Promise<Commands> {
  const tx = database.transaction(STORES);
  const { seq: head, from } = await historyOf({ tx, now: 0 });
  const rows = await tx.objectStore("commands").getAll(IDBKeyRange.lowerBound(after, true), READ_AT_ONCE);
  return { rows, isComplete: after + 1 >= from, head };
}

function abort(tx: Writes["tx"]): void {
  try {
    tx.abort();
  } catch {
    // it is over already
  }
}
