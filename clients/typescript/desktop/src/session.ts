/** The session of one window: which requests it may make, the account that it has open, and what it is told. */

import { setMaxListeners } from "node:events";
import {
  BackscrollError,
  BusyError,
  type Client,
  ForbiddenError,
  InternalError,
  NoReplyError,
  UnavailableError,
} from "backscroll";
import {
  checkedPayload,
  checkedRequest,
  invalidAt,
  OPERATIONS,
  type OperationName,
  UnknownOperationError,
} from "backscroll/language";
import type { Listener } from "./account.js";
import { type Envelope, errorEnvelope, isRecord } from "./envelope.js";
import { Outbox, type Send } from "./outbox.js";
import { checkedScope, type Kind, SWITCH_SCOPE } from "./request.js";

/** The payloads of a session's requests without an answer, together with `REQUEST_BYTES` for each. */
const BYTES_MAX = 64 * 1024 * 1024;
const REQUEST_BYTES = 1_024;
/** A switch counts as so many more, because it takes much longer: 65,536 at once took the main process 10 seconds. */
const SWITCH_BYTES = 63 * 1_024;

/**
 * What a window may call if nothing else is said: what reads or writes the account's data, and `clear-all-data`. Nothing
 * about other accounts, tokens, or the daemon.
 */
export const DEFAULT_OPERATIONS: readonly OperationName[] = operationNames().filter((name) => {
  const { right } = OPERATIONS[name];
  return right === "read" || right === "write" || name === "clear-all-data";
});

/** What a window may do, and how it is told what changes. */
export interface SessionOptions {
  /**
   * Sends an event to the window. If it returns a promise, the next event is sent after it is fulfilled, and what
   * changes meanwhile is merged: so that a window that takes nothing costs no memory.
   */
  send: Send;
  /** The commands and queries that the window may call; `DEFAULT_OPERATIONS` if left out. */
  operations?: Iterable<OperationName> | undefined;
  /** Whether the window may open an account; any if left out. */
  mayUse?: ((scope: string) => boolean | Promise<boolean>) | undefined;
}

/** An account as a session has it. */
export interface Membership {
  client: Client;
  leave(): void;
}

/** From one switch to the next. */
class Stay {
  /** Ends the queries when the account is left. */
  readonly leaving = new AbortController();
  /** The requests without an answer. */
  readonly requests = new Set<Promise<unknown>>();

  constructor() {
    setMaxListeners(0, this.leaving.signal); // each query listens until it has its answer
  }
}

/** What a session needs of its store. */
export interface SessionStore {
  join(scope: string, listener: Listener): Promise<Membership>;
  closed(): void;
  onProblem(problem: unknown): void;
}

/**
 * Answers the requests of one window. It has no account open until `switch-scope`, a bridged command with the payload
 * `{ scope }`, which is fulfilled when the account's changes are being followed: every later query is newer than the
 * first change that is pushed. Requests that are called after it wait for it, and are for the new account.
 *
 * With a switch the account before is left: its commands that are under way are answered first, its queries are
 * rejected with `NoReplyError`, and after the switch nothing of it is answered or sent. After a switch that failed no
 * account is open.
 */
export class Session {
  readonly #send: Send;
  readonly #operations: ReadonlySet<string>;
  readonly #mayUse: (scope: string) => boolean | Promise<boolean>;
  readonly #store: SessionStore;
  #stay = new Stay();
  /** The bytes of the requests without an answer. */
  #bytes = 0;
  /** The account of the requests that are called now; it is never rejected. */
  #membership: Promise<Membership | undefined> = Promise.resolve(undefined);
  #outbox: Outbox;
  #closing: Promise<void> | undefined;

  /** @internal Made by `DesktopStore.session`. */
  constructor({ send, operations = DEFAULT_OPERATIONS, mayUse = () => true }: SessionOptions, store: SessionStore) {
    this.#send = send;
    this.#operations = new Set(checkedOperations(operations));
    this.#mayUse = mayUse;
    this.#store = store;
    this.#outbox = new Outbox(send);
  }

  /** Answer a request, `{ type, payload }`. It is never rejected: what goes wrong is in the envelope. */
  async answer(kind: Kind, request: unknown): Promise<Envelope> {
    try {
      return { ok: true, result: await this.#execute(kind, request) };
    } catch (error) {
      if (error instanceof BackscrollError) return errorEnvelope(error);
      this.#store.onProblem(error);
      return errorEnvelope(new InternalError("the main process could not execute the request", { code: "internal" }));
    }
  }

  /** End the session: fulfils when its commands under way have their outcomes, and its account was left. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const before = this.#leave();
    const membership = this.#membership;
    this.#membership = Promise.resolve(undefined);
    void this.#outbox.close();
    await before;
    (await membership)?.leave();
    this.#store.closed();
  }

  async #execute(kind: Kind, request: unknown): Promise<unknown> {
    if (this.#closing) throw unavailable("the window's session has ended");
    const { type, payload } = checkedRequest(request);
    if (type === SWITCH_SCOPE) {
      if (kind !== "command") throw invalidAt("$.type", "switch-scope is a command; call `command`");
      const scope = checkedScope(payload);
      return this.#whileWaiting(SWITCH_BYTES, () => this.#switchScope(scope));
    }
    this.#checkOperation(kind, type);
    const checked = checkedPayload(payload, OPERATIONS[type].bytesFields);
    if (type === "batch") this.#checkBatch(checked.payload["commands"]); // of the copy, which is what is sent
    return this.#whileWaiting(checked.bytes, () => this.#call(kind, type, checked.payload));
  }

  async #call(kind: Kind, type: OperationName, payload: Record<string, unknown>): Promise<unknown> {
    const { signal } = this.#stay.leaving;
    const membership = await this.#membership;
    if (membership === undefined) {
      throw new ForbiddenError("no account is open: call switch-scope first", { code: "forbidden" });
    }
    // What was called is executed: only the result of a query is of no use any more.
    return membership.client.call(type as string, payload, kind === "query" ? { signal } : {});
  }

  /** Let a request count as one without an answer until it has one. */
  async #whileWaiting(payloadBytes: number, act: () => Promise<unknown>): Promise<unknown> {
    const bytes = payloadBytes + REQUEST_BYTES;
    if (this.#bytes + bytes > BYTES_MAX) {
      throw new BusyError("too many requests of this window have no answer yet", { code: "busy", retryable: true });
    }
    const outcome = act();
    const { requests } = this.#stay; // of a switch, that of its account
    this.#bytes += bytes;
    requests.add(outcome);
    try {
      return await outcome;
    } finally {
      requests.delete(outcome);
      this.#bytes -= bytes;
    }
  }

  #checkOperation(kind: Kind, type: string, path = "$.type"): asserts type is OperationName {
    if (!Object.hasOwn(OPERATIONS, type)) {
      const known = [...this.#operations];
      throw new UnknownOperationError(`${path}: no operation has this name`, {
        code: "unknown-operation",
        details: { path, known },
      });
    }
    if (!this.#operations.has(type)) {
      throw new ForbiddenError(`${path}: this window may not call ${type}`, { code: "forbidden", details: { path } });
    }
    const actual = OPERATIONS[type as OperationName].kind;
    if (actual !== kind) throw invalidAt(path, `${type} is a ${actual}; call \`${actual}\``);
  }

  /** What the window may not call, it may not call in a batch. What is no batch, the daemon refuses. */
  #checkBatch(commands: unknown): void {
    if (!Array.isArray(commands)) return;
    for (const [index, command] of commands.entries()) {
      const type: unknown = isRecord(command) ? command["type"] : undefined;
      if (typeof type === "string") this.#checkOperation("command", type, `$.payload.commands[${String(index)}].type`);
    }
  }

  async #switchScope(scope: string): Promise<null> {
    const before = this.#leave();
    const left = this.#membership;
    const outbox = new Outbox(this.#send, this.#outbox.toldDisconnected);
    const leavingOutbox = this.#outbox.close();
    this.#outbox = outbox;
    const joined = this.#join(scope, outbox, Promise.all([before, leavingOutbox]), left);
    this.#membership = joined.catch(() => undefined);
    await joined;
    // The answer goes first: what the window is told before it knows of the switch, it could take for the other account's.
    setImmediate(() => {
      outbox.open();
    });
    return null;
  }

  async #join(
    scope: string,
    outbox: Outbox,
    before: Promise<unknown>,
    left: Promise<Membership | undefined>,
  ): Promise<Membership> {
    await before;
    try {
      if (!(await this.#mayUse(scope))) {
        const path = "$.payload.scope";
        const problem = `${path}: this window may not open the account ${JSON.stringify(scope)}`;
        throw new ForbiddenError(problem, { code: "forbidden", details: { path } });
      }
      return await this.#store.join(scope, (event) => {
        outbox.push(event);
      });
    } finally {
      (await left)?.leave(); // at last: the account may be the same
    }
  }

  /** Leave the account that is open: fulfils when its requests have their answers. */
  async #leave(): Promise<void> {
    const { leaving, requests } = this.#stay;
    this.#stay = new Stay();
    leaving.abort(new NoReplyError("the window left the account before the query was answered"));
    await Promise.allSettled(requests);
  }
}

function operationNames(): OperationName[] {
  return Object.keys(OPERATIONS) as OperationName[];
}

function checkedOperations(operations: Iterable<OperationName>): OperationName[] {
  const names = [...operations];
  for (const name of names) {
    const kind = Object.hasOwn(OPERATIONS, name) ? OPERATIONS[name].kind : "unknown";
    if (kind !== "command" && kind !== "query") {
      throw invalidAt("operations", `a window can be allowed commands and queries; ${name} is ${kind}`);
    }
  }
  return names;
}

function unavailable(problem: string): UnavailableError {
  return new UnavailableError(problem, { code: "unavailable" });
}
