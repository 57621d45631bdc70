/** The database of one account while it is open: requests one after the other, and what tells of changes. */

import {
  type BackscrollError,
  type ChangePage,
  type GetChanges,
  NoReplyError,
  type StoreEvent,
} from "backscroll/language";
import { openDatabase } from "./database.js";
import { asStoreError, noAccount, storage, unavailable } from "./errors.js";
import { type CommandRow, type Database, STORES, type Writes } from "./layout.js";
import { type LegacyOptions, adoptLegacy } from "./legacy.js";
import { randomId } from "./migrations.js";
import { deleteExpiredMessages, isDue, nextExpiry } from "./operations/expiry.js";
import { historyOf, isNothingNew, itemChange } from "./operations/feed.js";
import { COMMANDS, QUERIES } from "./operations/index.js";
import { type Commands, Tail } from "./tabs.js";
import type { Checked, Known } from "./validate.js";
import { Waiting } from "./waiting.js";

/** So many commands are kept for the feed, and a few more. */
const KEPT_COMMANDS = 10_000;
/** So many older ones are deleted at a time. */
const DROPPED_AT_ONCE = 100;
const READ_AT_ONCE = 500;
/** How long requests may take that are under way when the account is closed. */
const CLOSE_MS = 30_000;
/** The longest time of a timer. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** What does not depend on the account. */
export interface AccountOptions {
  /** How long to wait for other tabs that use an older version of the database, in milliseconds. */
  readonly blockedMs: number;
  readonly legacy: LegacyOptions | undefined;
  readonly tell: (event: StoreEvent) => void;
}

/** A connection, and what follows the commands that are committed by it and by others. */
interface Connection {
  readonly database: Database;
  readonly tail: Tail;
}

/** Does the work of a command in its transaction. */
type Handler = (work: Writes) => Promise<unknown>;

export class Account {
  readonly #scope: string;
  readonly #name: string;
  readonly #options: AccountOptions;
  readonly #session = randomId();
  /** The requests under way, and how to reject each. */
  readonly #running = new Map<Promise<unknown>, (reason: BackscrollError) => void>();
  readonly #waiting = new Waiting();
  #connection: Promise<Connection> | undefined;
  /** The latest connection, which may be lost, and the history of its database. */
  #latest: (Connection & { history: string }) | undefined;
  /** Whether `open` is done: before that nothing is told. */
  #isOpen = false;
  #problem: BackscrollError | undefined;
  #expiry: { at: number; timer: ReturnType<typeof setTimeout> } | undefined;

  constructor(scope: string, name: string, options: AccountOptions) {
    this.#scope = scope;
    this.#name = name;
    this.#options = options;
  }

  /**
   * Open the database after the account before was left, and adopt the legacy database if it belongs to this account.
   * To be called first; requests wait for it, and are refused if it fails.
   */
  async open(before: Promise<void> | undefined): Promise<void> {
    const opening = this.#open(before);
    this.#connection = opening.catch(() => {
      throw noAccount();
    });
    this.#connection.catch(() => undefined); // whoever waits for it is told
    try {
      await opening;
    } catch (error) {
      this.#problem ??= noAccount();
      await this.close();
      throw asStoreError(error);
    }
  }

  async #open(before: Promise<void> | undefined): Promise<Connection> {
    await before;
    const connection = await this.#connect();
    const { database, tail } = connection;
    const { legacy } = this.#options;
    if (legacy !== undefined) {
      await adoptLegacy(this.#scope, legacy, database, async (handler) => {
        if (this.#problem !== undefined) throw this.#problem; // the rest is copied when the account is opened again
        return this.#execute(handler, database, tail);
      });
    }
    this.#isOpen = true;
    return connection;
  }

  command(type: Known, payload: object): Promise<unknown> {
    const handler = COMMANDS[type];
    this.#expireAt(expiryIn(payload));
    return this.#run(({ database, tail }) =>
      this.#execute(async (work) => handler?.(payload as never, work), database, tail),
    );
  }

  query(type: Known, payload: object): Promise<unknown> {
    if (type === "get-changes") return this.#changes(payload);
    return this.#run((connection) => this.#ask(type, payload, connection));
  }

  /**
   * Finish what was called, at most for a while, and close the database. What waits is rejected, and nothing is told any
   * more.
   */
  async close(): Promise<void> {
    this.#problem ??= new NoReplyError("the account was left before the query was answered");
    this.#waiting.wake();
    clearTimeout(this.#expiry?.timer);
    await this.#connection?.catch(() => undefined);
    this.#latest?.tail.close();
    const deadline = setTimeout(() => {
      const problem =
        "the account was left, and the browser has not executed the request: whether it will is not known";
      for (const reject of this.#running.values()) reject(new NoReplyError(problem));
    }, CLOSE_MS);
    await Promise.allSettled(this.#running.keys()); // there are no new ones, because of the problem
    clearTimeout(deadline);
    this.#latest?.database.close();
  }

  /** Do something with the connection. In the order of the calls, because transactions begin in this order. */
  async #run<Result>(act: (connection: Connection) => Promise<Result>): Promise<Result> {
    if (this.#problem !== undefined) throw this.#problem;
    const connection = (this.#connection ??= this.#reconnect());
    let reject: (reason: BackscrollError) => void = () => undefined;
    const running = new Promise<Result>((resolve, fail) => {
      reject = fail;
      connection.then(act).then(resolve, (error: unknown) => {
        fail(asStoreError(error));
      });
    });
    this.#running.set(running, reject);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  /** Connect again; if that fails, the next request tries it. */
  #reconnect(): Promise<Connection> {
    const connection = this.#connect();
    connection.catch(() => {
      if (this.#connection === connection) this.#connection = undefined;
    });
    return connection;
  }

  async #connect(): Promise<Connection> {
    let isLost = false as boolean; // by a callback
    const database = await openDatabase(this.#name, this.#options.blockedMs, {
      superseded: () => {
        isLost = true;
        this.#supersede();
      },
      lost: () => {
        isLost = true;
        this.#lose();
      },
    });
    try {
      const tx = database.transaction(STORES);
      const { id, seq } = await historyOf({ tx, now: 0 });
      const expiry = await nextExpiry({ tx, now: 0 });
      if (isLost) throw this.#problem ?? storage("the database was deleted while it was opened: try again", true);
      const tail = this.#follow(database, id, seq);
      this.#expireAt(expiry);
      return { database, tail };
    } catch (error) {
      database.close();
      throw error;
    }
  }

  /** Follow a database from its last command on; where it was open before, from the last one that was told. */
  #follow(database: Database, history: string, seq: number): Tail {
    const before = this.#latest;
    const isSame = before?.history === history;
    const seen = isSame ? before.tail.seen : seq;
    const tail = new Tail(`${this.#name} ${history}`, seen, (after) => commandsAfter(after, database), {
      committed: (row) => {
        this.#committed(row);
      },
      missed: () => {
        this.#waiting.wake();
        this.#tell({ type: "gap" });
      },
    });
    this.#latest = { database, history, tail };
    if (before !== undefined && !isSame) this.#tell({ type: "gap" });
    if (seen < seq) void tail.catchUp();
    return tail;
  }

  #committed(row: CommandRow): void {
    this.#waiting.wake();
    this.#expireAt(row.due);
    const changes = row.changes.map((each) => itemChange(row, each));
    if (changes.length > 0) this.#tell({ type: "changed", changes });
  }

  /** What happened before the account was open, each query shows: they all come later. */
  #tell(event: StoreEvent): void {
    if (this.#isOpen) this.#options.tell(event);
  }

  #supersede(): void {
    const problem = "a later version of this application is open in another tab: reload this page";
    this.#problem = unavailable(problem);
    this.#drop();
    this.#tell({ type: "disconnected", problem: { code: this.#problem.code, message: problem } });
  }

  /** Open the database again, because nothing would be told meanwhile. */
  #lose(): void {
    this.#drop();
    if (this.#isOpen && this.#problem === undefined) this.#run(() => Promise.resolve()).catch(() => undefined);
  }

  #drop(): void {
    this.#latest?.tail.close();
    if (this.#isOpen) this.#connection = undefined; // otherwise `open` fails
    clearTimeout(this.#expiry?.timer);
    this.#expiry = undefined; // set anew with the next connection
    this.#waiting.wake();
  }

  async #execute(handler: Handler, database: Database, tail: Tail): Promise<unknown> {
    const tx = database.transaction(STORES, "readwrite", { durability: "strict" });
    tx.done.catch(() => undefined); // it is awaited below, unless the command fails before
    const work: Writes = { tx, now: Date.now(), changes: [] };
    const rows: CommandRow[] = [];
    let result: unknown;
    try {
      result = await handler(work);
      rows.push(await this.#log(work));
      // A message that was saved too late expires here, or a query that was called next would not see it deleted.
      if (work.due !== undefined && work.due <= work.now) rows.push(await this.#logExpiry(work));
      await tx.done;
    } catch (error) {
      abort(tx);
      if (tx.error !== null) throw asStoreError(tx.error); // the cause, such as no room; the requests were only aborted
      throw error;
    }
    for (const row of rows) tail.committed(row);
    return result;
  }

  /** Delete messages that have expired, in the transaction of another command. */
  async #logExpiry({ tx, now }: Writes): Promise<CommandRow> {
    const work: Writes = { tx, now, changes: [] };
    await deleteExpiredMessages(work);
    return this.#log(work);
  }

  /** Write what a command changed, under the next number. */
  async #log({ tx, now, changes, due }: Writes): Promise<CommandRow> {
    const history = await historyOf({ tx, now });
    const seq = history.seq + 1;
    const requestId = `${this.#session}-${String(seq)}`;
    const row: CommandRow = { seq, at: now, requestId, changes, ...(due !== undefined && { due }) };
    const commands = tx.objectStore("commands");
    let { from } = history;
    if (seq - from >= KEPT_COMMANDS + DROPPED_AT_ONCE) {
      from = seq - KEPT_COMMANDS + 1;
      await commands.delete(IDBKeyRange.upperBound(from, true));
    }
    await Promise.all([commands.put(row), tx.objectStore("meta").put({ ...history, seq, from })]);
    return row;
  }

  /** Answer a query, after messages are deleted that have expired. */
  async #ask(type: Known, payload: object, { database, tail }: Connection): Promise<unknown> {
    for (;;) {
      // Both transactions begin now, so that later commands come after them.
      const isExpected = this.#expiry !== undefined && this.#expiry.at <= Date.now();
      const expiring = isExpected ? this.#expire(database, tail) : undefined;
      const [answer] = await Promise.all([answerUnlessDue(type, payload, database), expiring]);
      if (answer !== undefined) return answer.result;
      await this.#expire(database, tail); // of another tab, or too many for one command
    }
  }

  /** Delete messages that have expired; a command that finds none, because another tab was faster, has no effect. */
  async #expire(database: Database, tail: Tail): Promise<void> {
    const nothing = new Error("no message has expired");
    const handler: Handler = async (work) => {
      if ((await deleteExpiredMessages(work)) === 0) throw nothing;
    };
    await this.#execute(handler, database, tail).catch((error: unknown) => {
      if (error !== nothing) throw error;
    });
  }

  /** Have messages deleted at a time, if it is the next one. */
  #expireAt(at: number | undefined): void {
    if (at === undefined || this.#problem !== undefined) return;
    if (this.#expiry !== undefined && this.#expiry.at <= at) return;
    clearTimeout(this.#expiry?.timer);
    const timer = setTimeout(
      () => {
        this.#expiry = undefined;
        this.#run((connection) => this.#expireDue(connection)).catch(() => undefined); // the next query tries again
      },
      Math.min(Math.max(at - Date.now(), 0), TIMER_MS_MAX),
    );
    this.#expiry = { at, timer };
  }

  async #expireDue({ database, tail }: Connection): Promise<void> {
    for (;;) {
      const tx = database.transaction(STORES);
      tx.done.catch(() => undefined);
      const next = await nextExpiry({ tx, now: 0 });
      if (next === undefined || next > Date.now()) {
        this.#expireAt(next);
        return;
      }
      await this.#expire(database, tail);
    }
  }

  /** The changes after a cursor; where there are none, what comes within the time that the query may wait. */
  async #changes(query: Checked<GetChanges>): Promise<unknown> {
    const deadline = performance.now() + (query.waitMs ?? 0);
    for (;;) {
      const turn = this.#waiting.enter(); // before the page is read, or what comes meanwhile would be missed
      try {
        const page = await this.#run((connection) => this.#ask("get-changes", query, connection));
        const left = deadline - performance.now();
        if (left <= 0 || !isNothingNew(query, page as ChangePage)) return page;
        if (!(await turn.isWoken(left))) return page;
      } finally {
        turn.leave();
      }
    }
  }
}

/** The result of a query; undefined if a message has expired that is not deleted. */
async function answerUnlessDue(
  type: Known,
  payload: object,
  database: Database,
): Promise<{ result: unknown } | undefined> {
  const tx = database.transaction(STORES);
  tx.done.catch(() => undefined);
  const work = { tx, now: Date.now() };
  return (await isDue(work)) ? undefined : { result: await QUERIES[type]?.(payload as never, work) };
}

/** When the message in a payload expires. */
function expiryIn({ message, updates }: { message?: unknown; updates?: unknown }): number | undefined {
  const { expiresAt } = (message ?? updates ?? {}) as { expiresAt?: unknown };
  return typeof expiresAt === "number" ? expiresAt : undefined;
}

async function commandsAfter(after: number, database: Database): Promise<Commands> {
  const tx = database.transaction(STORES);
  tx.done.catch(() => undefined);
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
