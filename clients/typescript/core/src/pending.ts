/**
 * What a client has under way, without any I/O: encoding, decoding, and sending again.
 *
 *     call ──add()──▶ queue ──next(), markSent()──▶ daemon
 *                     ▲  ▲                            │
 *     reconnected() ──┘  └──── handleReply() ◀────────┘
 *
 * The daemon executes a command once, however often it receives the same id. So unanswered calls are sent again:
 *
 * - On a new connection, all of them in the order first sent, before anything new.
 * - After a refusal while an earlier attempt is in doubt, because its connection was lost. Such a refusal says nothing
 *   about that attempt, unless it is the caller's fault. The call is sent again after `RETRY_DELAY_MS`, unless others
 *   were sent after it: then its outcome is unknown.
 *
 * A call is never sent twice on one connection, which loses nothing while it lives: the copy would stand behind later
 * requests, and could take effect after them. The ids of maintenance operations are not remembered by the daemon, so
 * these are sent once; if their connection is lost, the outcome is unknown.
 *
 * A connection may be lost while the daemon runs on, with the refusal of a command unread. Sent again, it is judged anew,
 * after commands that were sent later. So commands have `client`, an id of this object, and `n`, which rises: the daemon
 * does not execute a command after a later one of its client, and answers `superseded`.
 *
 * Times are milliseconds of `performance.now()`.
 */

import { invalid, unavailable } from "./address.js";
import { type BackscrollError, CallerError, DaemonError, NoReplyError } from "./errors.js";
import { BusyError, ERRORS, InternalError, TooLargeError } from "./generated/errors.js";
import { LIMITS } from "./generated/limits.js";
import { type JsonType, LEVEL, OPERATIONS, type OperationInfo } from "./generated/operations.js";
import { checkNumbers } from "./numbers.js";
import { newId } from "./ulid.js";

export const RETRY_DELAY_MS = 100;
/** Requests without a reply, and their bytes. Queries that wait in the daemon do not count: it has a bound for them. */
export const IN_FLIGHT_MAX = 1_000;
const IN_FLIGHT_BYTES_MAX = 32 * 1024 * 1024;
/** All calls of a client, also those that are not sent yet, and the bytes of their bodies. */
export const CALLS_MAX = 100_000;
const CALLS_BYTES_MAX = 256 * 1024 * 1024;
export const CLOSED = "the client was closed";

const DEFAULT_SCOPE = "default";
/** Of an operation of a later level. The daemon ignores what only a command needs, where it is none. */
const OTHER: OperationInfo = { kind: "command", right: "write" };

/** A result, and the number of the scope's commit that it reflects. */
export interface Answer<Result> {
  result: Result;
  seq: number;
}

/** Who sends a command, and the number that it has among the commands of this client. */
export interface Sender {
  client: string;
  n: number;
}

/** What the envelope of a request has besides its operation. */
export interface CallOptions {
  timeoutMs: number;
  sender?: Sender | undefined;
  scope?: string | undefined;
  requestId?: string | undefined;
  traceparent?: string | undefined;
  /** When the caller began to wait. */
  now?: number | undefined;
}

/** One request, from its creation until its outcome is known. */
export class Call {
  readonly id: string;
  readonly timeoutMs: number;
  /** When its caller stops waiting. */
  readonly deadline: number;
  readonly info: OperationInfo;
  /** Its place among all calls of the client. */
  number = 0;
  /** When it was sent on the current connection. */
  sentAt = 0;
  awaitingReply = false;
  inDoubt = false;
  isSettled = false;
  /** The body in three parts, so that the payload has the same bytes whenever it is sent. */
  readonly #before: string;
  #payload: string;
  readonly #after: string;
  readonly #waitMs: number;
  readonly #settle: (outcome: Answer<unknown> | BackscrollError) => void;
  /** Bytes of the body, at least. */
  readonly bytes: number;

  /** Encode the request; throws `InvalidError` if that is not possible, and `TooLargeError` for a body over its limit. */
  constructor(
    type: string,
    payload: unknown,
    { timeoutMs, sender, scope = DEFAULT_SCOPE, requestId, traceparent, now = performance.now() }: CallOptions,
    settle: (outcome: Answer<unknown> | BackscrollError) => void,
  ) {
    this.info = infoOf(type);
    this.id = requestId ?? newId();
    if (requestId !== undefined) checkId(requestId);
    this.#waitMs = waitMsOf(payload);
    this.timeoutMs = timeoutMs + this.#waitMs;
    this.deadline = now + this.timeoutMs;
    this.#payload = encode(payload, this.info);
    this.#before = `{"id":${JSON.stringify(this.id)},"type":${JSON.stringify(type)},"payload":`;
    const traced = traceparent === undefined ? "" : `,"traceparent":${JSON.stringify(traceparent)}`;
    const scoped = scope === DEFAULT_SCOPE ? "" : `,"scope":${JSON.stringify(scope)}`;
    const numbered = sender ? `,"client":${JSON.stringify(sender.client)},"n":${String(sender.n)}` : "";
    this.#after = scoped + numbered + traced;
    this.bytes = Buffer.byteLength(this.#payload) + this.#before.length + this.#after.length;
    this.#settle = settle;
    const most = type === "append-log" ? LIMITS.logBodyBytes : LIMITS.bodyBytes;
    if (this.bytes > most) {
      const problem = `the body has ${String(this.bytes)} bytes; at most ${String(most)} are allowed`;
      throw new TooLargeError(problem, { code: "too-large" });
    }
  }

  /** Whether the call may have had an effect, while it has no outcome. */
  get wasSent(): boolean {
    return this.awaitingReply || this.inDoubt;
  }

  /** Whether its reply may come long after those of later calls. */
  get waits(): boolean {
    return this.#waitMs > 0;
  }

  /**
   * What to send now. Attempts differ only in `deadlineMs`, the remaining time. A query that waits must wait so much
   * less, or its reply would come after the deadline.
   */
  bodyAt(now: number, { level, token }: { level?: number | undefined; token?: string | undefined } = {}): string {
    const remainingMs = Math.max(1, Math.ceil(this.deadline - now));
    let payload = this.#payload;
    if (this.waits && remainingMs < this.timeoutMs) {
      const waitMs = Math.max(0, this.#waitMs - (this.timeoutMs - remainingMs));
      payload = JSON.stringify({ ...(JSON.parse(payload) as object), waitMs });
    }
    const leveled = level === undefined ? "" : `,"level":${String(level)}`;
    const authorised = token === undefined ? "" : `,"auth":${JSON.stringify(token)}`;
    return `${this.#before}${payload}${this.#after},"deadlineMs":${String(remainingMs)}${leveled}${authorised}}`;
  }

  settle(outcome: Answer<unknown> | BackscrollError): void {
    this.drop();
    this.#settle(outcome);
  }

  /** Hold no payload any more: the call may stay in the queue for a while, behind one that waits. */
  drop(): void {
    this.isSettled = true;
    this.#payload = "";
  }

  /** The error for a call that got no reply: `UnavailableError` if it was not sent, otherwise `NoReplyError`. */
  unanswered(why?: string): BackscrollError {
    if (!this.wasSent) return unavailable(`${why ?? "no daemon answers"}; nothing was sent`);
    const reason = why ?? `no reply within ${String(this.timeoutMs)} ms`;
    return new NoReplyError(`${reason}: whether the request took effect is unknown`);
  }
}

/** A client's calls without an outcome, in the order first sent, and the queue of those to send next. */
export class PendingCalls {
  /** When to call `queueRetry`; infinite if there is nothing to retry. */
  retryAt = Infinity;
  isClosed = false;
  readonly #client = newId();
  #n = 0;
  /** For the first request only. */
  #level: number | undefined = LEVEL;
  readonly #calls = new Map<string, Call>();
  #callsBytes = 0;
  /**
   * Those to send next, from the index `#head` on: `shift` would move all of a long array. Settled ones are skipped when
   * they come to the head.
   */
  #queue: Call[] = [];
  #head = 0;
  /**
   * The bytes of each request that has no reply on this connection, also of those that nobody waits for any more. There
   * are several with one id if the caller stopped waiting and executed the command again.
   */
  readonly #inFlight = new Map<string, number[]>();
  #inFlightCount = 0;
  #inFlightBytes = 0;
  #added = 0;
  #highestSent = 0;
  #refused: Call | undefined;

  get size(): number {
    return this.#calls.size;
  }

  /** Who sends a new call of this operation, to be added next: each command gets the next `n`. */
  senderOf(type: string): Sender | undefined {
    return infoOf(type).kind === "command" ? { client: this.#client, n: ++this.#n } : undefined;
  }

  /** Append a call to the queue. Throws if the client was closed, has too many calls, or one with this id. */
  add(call: Call): void {
    if (this.isClosed) throw call.unanswered(CLOSED);
    if (this.#calls.has(call.id))
      throw invalid(`a request with the id ${JSON.stringify(call.id)} is already in flight`);
    if (this.#calls.size >= CALLS_MAX || this.#callsBytes + call.bytes > CALLS_BYTES_MAX) {
      const held = `${String(this.#calls.size)} requests of this client, of ${String(this.#callsBytes)} bytes,`;
      throw new BusyError(`${held} have no reply yet: wait for some; nothing was sent`, {
        code: "busy",
        retryable: true,
      });
    }
    this.queueRetry(Infinity); // a refused call goes before a new one
    call.number = ++this.#added;
    this.#calls.set(call.id, call);
    this.#callsBytes += call.bytes;
    this.#queue.push(call);
  }

  /** The next call to send; undefined if there is none, or too many are in flight. */
  next(): Call | undefined {
    while (this.#queue[this.#head]?.isSettled) this.#dequeue();
    const call = this.#queue[this.#head];
    return call === undefined || (!call.waits && this.#isFull(call.bytes)) ? undefined : call;
  }

  /** Note that the next call is sent now; returns its body. */
  markSent(call: Call, now: number, token?: string): string {
    const body = call.bodyAt(now, { level: this.#level, token });
    this.#level = undefined;
    this.#dequeue();
    call.awaitingReply = true;
    call.sentAt = now;
    this.#highestSent = Math.max(this.#highestSent, call.number);
    if (!call.waits) {
      this.#inFlight.set(call.id, [...(this.#inFlight.get(call.id) ?? []), call.bytes]);
      this.#inFlightCount += 1;
      this.#inFlightBytes += call.bytes;
    }
    return body;
  }

  /** Process a reply; throws `InternalError` if it is none. A reply to a call that nobody waits for is dropped. */
  handleReply(body: Buffer, now: number): void {
    const reply = openReply(body);
    if (typeof reply.id !== "string" || this.#isOfEarlier(reply.id)) return;
    const call = this.#calls.get(reply.id);
    if (!call?.awaitingReply) return;
    call.awaitingReply = false;
    const outcome = outcomeOf(reply, call);
    const isFinal = !call.inDoubt || reply.ok || outcome instanceof CallerError;
    if (isFinal) this.settle(call, outcome);
    else if (call.number < this.#highestSent) {
      this.settle(call, call.unanswered("a retry was refused, and other requests were sent after it"));
    } else {
      this.#refused = call;
      this.retryAt = now + RETRY_DELAY_MS;
      if (this.#queued().length > 0) this.queueRetry(Infinity);
    }
  }

  /** There is a new connection: queue all calls without an outcome to be sent on it, in order. */
  reconnected(): void {
    this.lost();
    this.#setQueue([...this.#calls.values()]);
  }

  /** The connection was lost: what was sent on it is in doubt. */
  lost(): void {
    this.#inFlight.clear();
    this.#inFlightCount = 0;
    this.#inFlightBytes = 0;
    this.#refused = undefined;
    this.retryAt = Infinity;
    this.#setQueue([]);
    for (const call of [...this.#calls.values()]) {
      call.inDoubt = call.wasSent;
      call.awaitingReply = false;
      if (call.inDoubt && call.info.kind === "maintenance") {
        this.settle(call, call.unanswered("the connection was lost"));
      }
    }
  }

  /** Queue the refused call, before those that were never sent, if its delay is over. */
  queueRetry(now: number): void {
    if (this.#refused === undefined || now < this.retryAt) return;
    this.#setQueue([this.#refused, ...this.#queued()]);
    this.#refused = undefined;
    this.retryAt = Infinity;
  }

  /** Drop a call that nobody waits for any more. */
  forget(call: Call): void {
    call.drop();
    if (this.#calls.get(call.id) !== call) return;
    this.#calls.delete(call.id);
    this.#callsBytes -= call.bytes;
    if (this.#refused === call) {
      this.#refused = undefined;
      this.retryAt = Infinity;
    }
    if (this.#queue.length - this.#head > 2 * this.#calls.size + IN_FLIGHT_MAX) this.#setQueue(this.#queued());
  }

  /** Settle all calls that a condition holds for with errors. */
  fail(errorOf: (call: Call) => BackscrollError | undefined): void {
    for (const call of [...this.#calls.values()]) {
      const error = errorOf(call);
      if (error !== undefined) this.settle(call, error);
    }
  }

  /**
   * Settle a call whose deadline has passed; `receivedAt` is when the latest bytes arrived. Returns whether the
   * connection is to be given up as lost: if nothing has arrived since the call was sent, and if nobody waits for any of
   * the requests that fill the window, because their replies may never come.
   */
  timeOut(call: Call, error: BackscrollError, receivedAt: number): boolean {
    const isSilent = call.awaitingReply && receivedAt < call.sentAt;
    this.settle(call, error);
    if (isSilent || call.waits || !this.#isFull(call.bytes)) return isSilent;
    return ![...this.#inFlight.keys()].some((id) => this.#calls.has(id));
  }

  /** Give a call its outcome. */
  settle(call: Call, outcome: Answer<unknown> | BackscrollError): void {
    this.forget(call);
    call.settle(outcome);
  }

  /** Take the head off the queue, and now and then the part of the array that is before it. */
  #dequeue(): void {
    this.#head += 1;
    if (2 * this.#head > this.#queue.length) this.#setQueue(this.#queue.slice(this.#head));
  }

  #queued(): Call[] {
    return this.#queue.slice(this.#head).filter((each) => !each.isSettled);
  }

  #setQueue(calls: Call[]): void {
    this.#queue = calls;
    this.#head = 0;
  }

  /**
   * Note a reply. True if it is to a request that nobody waits for, after which the same id was sent again: a refusal
   * of the first says nothing about the second.
   */
  #isOfEarlier(id: string): boolean {
    const [bytes, ...later] = this.#inFlight.get(id) ?? [];
    if (bytes === undefined) return false;
    this.#inFlightCount -= 1;
    this.#inFlightBytes -= bytes;
    if (later.length > 0) this.#inFlight.set(id, later);
    else this.#inFlight.delete(id);
    return later.length > 0;
  }

  /** Whether so many bytes more would be too much; one request is always allowed. */
  #isFull(bytes: number): boolean {
    const many = this.#inFlightCount;
    return many >= IN_FLIGHT_MAX || (many > 0 && this.#inFlightBytes + bytes > IN_FLIGHT_BYTES_MAX);
  }
}

interface Reply {
  id: unknown;
  ok: boolean;
  result?: unknown;
  seq?: unknown;
  error?: unknown;
}

function openReply(body: Buffer): Reply {
  let reply: Partial<Reply> | null = null;
  try {
    reply = JSON.parse(body.toString()) as Partial<Reply> | null;
  } catch {
    // said below
  }
  if (typeof reply?.ok === "boolean" && (reply.ok ? "result" in reply : typeof reply.error === "object")) {
    return reply as Reply;
  }
  throw new InternalError("the daemon sent an invalid reply", { code: "internal" });
}

function outcomeOf(reply: Reply, { info }: Call): Answer<unknown> | BackscrollError {
  if (!reply.ok) return errorFrom(reply.error ?? {});
  if (info.result !== undefined && !info.result.includes(typeOf(reply.result))) {
    const problem = `the daemon's result is ${typeOf(reply.result)}, where ${info.result.join(" or ")} is declared`;
    return new InternalError(problem, { code: "internal" });
  }
  const result = info.bytesResult ? new Uint8Array(Buffer.from(reply.result as string, "base64")) : reply.result;
  return { result, seq: typeof reply.seq === "number" ? reply.seq : 0 };
}

/** The type of a value of JSON. */
function typeOf(value: unknown): JsonType {
  if (value === null) return "null";
  return Array.isArray(value) ? "array" : (typeof value as JsonType);
}

interface ReceivedError {
  code: string;
  message: string;
  fault: string;
  retryable: boolean;
  details: Record<string, unknown>;
}

/** The error of a reply. A code that this client does not know keeps its name, in the class of its `fault`. */
function errorFrom(error: Partial<Record<keyof ReceivedError, unknown>>): BackscrollError {
  const code = typeof error.code === "string" ? error.code : "internal";
  const ErrorClass = entryOf(ERRORS, code) ?? (error.fault === "caller" ? CallerError : DaemonError);
  return new ErrorClass(typeof error.message === "string" ? error.message : code, {
    code,
    retryable: error.retryable === true,
    details: (error.details ?? undefined) as Record<string, unknown> | undefined,
  });
}

export function infoOf(type: string): OperationInfo {
  return entryOf(OPERATIONS, type) ?? OTHER;
}

/** An entry of a table. The name may be anybody's, and `constructor` and `__proto__` are names in every object. */
function entryOf<Value>(table: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

function checkId(id: string): void {
  const bytes = Buffer.byteLength(id);
  if (bytes < 1 || bytes > LIMITS.requestIdBytes || !id.isWellFormed()) {
    throw invalid(`a request id must be text of 1 to ${String(LIMITS.requestIdBytes)} bytes`);
  }
}

/** How long the daemon is asked to wait; 0 also for what it refuses, so that its refusal is waited for like any reply. */
function waitMsOf(payload: unknown): number {
  const waitMs = (payload as { waitMs?: unknown } | null | undefined)?.waitMs;
  return typeof waitMs === "number" && waitMs > 0 && waitMs <= LIMITS.waitMs ? waitMs : 0;
}

/** The payload as JSON, with bytes as base64; throws `InvalidError` for what JSON would change silently. */
function encode(payload: unknown, { bytesFields = [] }: OperationInfo): string {
  if (typeof payload !== "object" || payload === null) {
    const got = payload === null ? "null" : typeof payload;
    throw invalid(`$.payload: expected an object, such as { roomId: "home" }, got ${got}`, "$.payload");
  }
  const fields = { ...(payload as Record<string, unknown>) };
  for (const name of bytesFields) {
    const bytes = fields[name];
    if (bytes instanceof Uint8Array) {
      fields[name] = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
    }
  }
  try {
    checkNumbers(fields, "$.payload");
    return JSON.stringify(fields);
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) {
      throw invalid(`the payload cannot be written: ${error.message}`);
    }
    throw error;
  }
}
