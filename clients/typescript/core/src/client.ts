/** The client: every operation as a method, and what follows the feed or moves files. */

import { type DaemonLocation, findAddress, invalid, targetOf } from "./address.js";
import { BackscrollError, CallerError } from "./errors.js";
import { Changes, type ChangesOptions, FeedIterator, type Watched, type WatchOptions, watchSteps } from "./feed.js";
import { Operations } from "./generated/methods.js";
import type { OperationName, Payloads, Results } from "./generated/operations.js";
import type { Media } from "./generated/records.js";
import { type ByteSource, download, type DownloadOptions, upload, type UploadOptions } from "./media.js";
import { type Answer, Call, CLOSED, PendingCalls } from "./pending.js";
import type { WatchedName } from "./reads.js";
import { Transport } from "./transport.js";

const TIMEOUT_MS = 5_000;
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** Where a client writes what happens, such as `console`. Payloads, results and tokens are never written. */
export interface Logger {
  /** What goes as it should, and refusals that are the caller's fault. */
  debug(message: string, details: object): void;
  /** The daemon does not answer, or could not execute a request. */
  warn(message: string, details: object): void;
}

/** How to find the daemon, and what holds for all requests. */
export interface ClientOptions extends DaemonLocation {
  /** The account whose data it is; `default` if left out. */
  scope?: string | undefined;
  /** How long a request waits for its reply: 5,000 if left out. The daemon does not start it later than that. */
  timeoutMs?: number | undefined;
  /** Called whenever a connection was made, and with a `problem` whenever it was lost or could not be made. */
  onConnection?: ((problem?: BackscrollError) => void) | undefined;
  /**
   * Gets a line for each request that has its outcome, and for each connection: as a warning if the daemon was at fault,
   * or does not answer, otherwise for debugging.
   */
  logger?: Logger | undefined;
  /** The W3C trace context of a request that has none of its own, such as that of the active span. */
  traceparent?: (() => string | undefined) | undefined;
}

/** What holds for one request. */
export interface RequestOptions {
  timeoutMs?: number | undefined;
  /**
   * Stops waiting: the promise is rejected with the signal's reason. A request that was sent already may still take
   * effect.
   */
  signal?: AbortSignal | undefined;
  /**
   * The id of a command, 1 to 64 bytes, preferably a ULID. To be sure of a command even across a restart of the
   * application, store the id before, and execute the same command with it until a reply comes: it takes effect once.
   */
  requestId?: string | undefined;
  /** W3C trace context, for the daemon's log. */
  traceparent?: string | undefined;
}

/**
 * A client of a backscroll daemon. It connects with the first request, and again whenever the connection was lost.
 *
 * Requests take effect in the order of the calls. Those without a reply are sent again on a new connection, in that
 * order and before any other; the daemon recognises commands by their ids, so each takes effect once. At most 1,000 are
 * in flight; more wait here, up to 100,000 with bodies of 256 MiB, and beyond that are rejected with `BusyError`. While
 * there are requests the process is kept alive.
 *
 * A request is rejected with the error of the daemon's reply if it had no effect (`NotFoundError`, …), with
 * `UnavailableError` if nothing was sent, and with `NoReplyError` if its outcome is unknown.
 */
export class Client extends Operations {
  readonly #pending = new PendingCalls();
  readonly #transport: Transport;
  readonly #scope: string | undefined;
  readonly #timeoutMs: number;
  readonly #logger: Logger | undefined;
  readonly #traceparent: (() => string | undefined) | undefined;
  readonly #closing = new AbortController();
  readonly #onConnection: ClientOptions["onConnection"];
  #problem: BackscrollError | undefined;
  #retrying: NodeJS.Timeout | undefined;

  /** Throws `InvalidError` if the options cannot be used; whether a daemon answers, the first request shows. */
  constructor(options: ClientOptions = {}) {
    super();
    const {
      dataDir,
      endpoint,
      token,
      scope,
      timeoutMs = TIMEOUT_MS,
      onConnection,
      logger,
      traceparent,
      ...others
    } = options;
    for (const name of Object.keys(others)) throw invalid(`a client has no option ${JSON.stringify(name)}`);
    if (endpoint !== undefined) targetOf(endpoint);
    this.#scope = scope;
    this.#timeoutMs = checkedTimeout("timeoutMs", timeoutMs);
    this.#onConnection = onConnection;
    this.#logger = logger;
    this.#traceparent = traceparent;
    this.#transport = new Transport(() => findAddress({ dataDir, endpoint, token }), {
      connected: () => {
        this.#problem = undefined;
        this.#pending.reconnected();
        this.#flush();
        this.#reportConnection();
      },
      reply: (body) => {
        this.#received(body);
      },
      lost: (problem) => {
        this.#problem = problem;
        this.#pending.lost();
        // What does not go away by waiting is said at once.
        if (problem instanceof CallerError) this.#pending.fail((call) => (call.wasSent ? undefined : problem));
        this.#settled();
        this.#reportConnection(problem);
      },
    });
  }

  /** Send a request by its name and wait for its result; it may be of a later level than this client. */
  override call<Name extends OperationName>(
    type: Name,
    payload: Payloads[Name],
    options?: RequestOptions,
  ): Promise<Results[Name]>;
  override call(type: string, payload?: object, options?: RequestOptions): Promise<unknown>;
  override async call(type: string, payload: object = {}, options: RequestOptions = {}): Promise<unknown> {
    return (await this.#ask(type, payload, options)).result;
  }

  /** Like `call`, with the number of the scope's commit that the result reflects. */
  answer<Name extends OperationName>(
    type: Name,
    payload: Payloads[Name],
    options: RequestOptions = {},
  ): Promise<Answer<Results[Name]>> {
    return this.#ask(type, payload, options) as Promise<Answer<Results[Name]>>;
  }

  /**
   * Follow the feed for ever: what changed after a cursor, in order, and what changes next.
   *
   * Without `after` it begins with the first command of the log, with `"now"` at the end of the feed. Store the
   * iterator's `cursor` together with what was applied, and begin there the next time. To start without the history and
   * lose nothing, store `(await client.getChanges({ after: "now" })).cursor` first, and begin there.
   *
   * If no daemon answers at the start, it throws. Later it goes on by itself when the daemon was restarted or could not
   * answer for a while. `FeedGapError` means that the cursor is of another history of the scope. It ends when its loop
   * is left, when `return()` was called, or when the client was closed.
   */
  changes(options: ChangesOptions = {}): Changes {
    return new Changes(this, options, this.#closing.signal);
  }

  /**
   * The result of a query, now and whenever it has changed, for ever. A slow reader gets the newest result and misses
   * those between; a result is never older than the one before it. It throws, goes on and ends like `changes`; `gap`
   * says that the scope has another history now. That only time passes is not noticed. The daemon lets 64 wait for one
   * client: where there are more, each may notice a change a second later.
   */
  watch<Name extends WatchedName>(
    type: Name,
    payload: Payloads[Name],
    { signal }: WatchOptions = {},
  ): FeedIterator<Watched<Results[Name]>> {
    return new FeedIterator(this, signal, this.#closing.signal, (ask) => watchSteps(ask, type, payload));
  }

  /** Upload a file in parts: bytes, a stream or any iterable of bytes. Returns its media, which may have existed. */
  upload(source: ByteSource, mime: string, options: UploadOptions = {}): Promise<Media> {
    return upload(this, source, mime, options);
  }

  /**
   * The bytes of a file, part by part, for `for await`, `Readable.from` or `ReadableStream.from`. Throws
   * `NotFoundError` for an unknown media, and `StorageError` at the end if the bytes are not those that were put.
   */
  download(mediaId: string, options: DownloadOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    return download(this, mediaId, options);
  }

  /** Close the connection. Requests without a reply are rejected, later ones too, and iterators end. */
  close(): void {
    if (this.#pending.isClosed) return;
    this.#pending.isClosed = true;
    this.#pending.fail((call) => call.unanswered(CLOSED));
    this.#closing.abort();
    clearTimeout(this.#retrying);
    this.#settled();
    this.#transport.close();
  }

  /** `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Send a request; the stack of its error names where it was called, and not only where its reply arrived. */
  async #ask(type: string, payload: object, options: RequestOptions): Promise<Answer<unknown>> {
    try {
      return await this.#request(type, payload, options);
    } catch (error) {
      if (error instanceof BackscrollError) Error.captureStackTrace(error);
      throw error;
    }
  }

  #request(type: string, payload: object, options: RequestOptions): Promise<Answer<unknown>> {
    const { signal, requestId } = options;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const begun = performance.now();
      const traceparent = options.traceparent ?? this.#traceparent?.();
      const timeoutMs = checkedTimeout("timeoutMs", options.timeoutMs ?? this.#timeoutMs);
      const sender = this.#pending.senderOf(type);
      const envelope = { timeoutMs, sender, scope: this.#scope, requestId, traceparent };
      const call = new Call(type, payload, envelope, (outcome) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.#reportOutcome(call, type, outcome, performance.now() - begun);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      });
      const abort = (): void => {
        clearTimeout(timer);
        this.#pending.forget(call);
        this.#settled();
        // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- the reason is the caller's
        reject(signal?.reason);
      };
      this.#pending.add(call);
      // If the process was busy, its reply may be there: what has arrived is read before `setImmediate` goes on.
      const timer = setTimeout(
        () =>
          setImmediate(() => {
            if (!call.isSettled) this.#timedOut(call);
          }),
        Math.min(call.timeoutMs, TIMEOUT_MS_MAX),
      );
      signal?.addEventListener("abort", abort, { once: true });
      this.#transport.setActive(true);
      this.#flush();
    });
  }

  /** Report the outcome of a request. The message of a caller's error may quote what people wrote. */
  #reportOutcome({ id }: Call, type: string, outcome: Answer<unknown> | BackscrollError, ms: number): void {
    const logger = this.#logger;
    if (logger === undefined) return;
    setImmediate(() => {
      if (!(outcome instanceof Error)) logger.debug(`${type}: ok`, { id, ms, seq: outcome.seq });
      else if (outcome.fault === "daemon") logger.warn(`${type}: ${outcome.code}: ${outcome.message}`, { id, ms });
      else logger.debug(`${type}: ${outcome.code}`, { id, ms, path: outcome.details?.["path"] });
    });
  }

  /**
   * Report a connection, or with a problem that there is none. The application's functions are called in turns of their
   * own: they may throw, or call this client, and nothing here is half done then.
   */
  #reportConnection(problem?: BackscrollError): void {
    if (this.#pending.isClosed) return;
    const [logger, onConnection] = [this.#logger, this.#onConnection];
    if (logger !== undefined) {
      setImmediate(() => {
        if (problem === undefined) logger.debug("connected", {});
        else logger.warn(`not connected: ${problem.message}`, { code: problem.code });
      });
    }
    if (onConnection !== undefined) setImmediate(onConnection, problem);
  }

  #timedOut(call: Call): void {
    const behind = this.#transport.isConnected ? "too many requests before it have no reply yet" : undefined;
    const error = call.wasSent ? call.unanswered() : (this.#problem ?? call.unanswered(behind));
    if (this.#pending.timeOut(call, error, this.#transport.receivedAt)) {
      this.#transport.drop("the daemon does not answer");
    }
    this.#settled();
  }

  #received(body: Buffer): void {
    try {
      this.#pending.handleReply(body, performance.now());
    } catch (error) {
      if (!(error instanceof BackscrollError)) throw error;
      this.#pending.fail(() => error); // it is unknown which call it belongs to
    }
    this.#flush();
    this.#settled();
  }

  /** Send what can be sent now. */
  #flush(): void {
    if (!this.#transport.isConnected) return;
    for (let call = this.#pending.next(); call !== undefined; call = this.#pending.next()) {
      this.#transport.send(this.#pending.markSent(call, performance.now(), this.#transport.token));
    }
    clearTimeout(this.#retrying);
    if (this.#pending.retryAt < Infinity) {
      this.#retrying = setTimeout(() => {
        this.#pending.queueRetry(Infinity);
        this.#flush();
      }, this.#pending.retryAt - performance.now());
    }
  }

  /** Some calls may be settled: without any, the connection need not be kept. */
  #settled(): void {
    if (this.#pending.size === 0) this.#transport.setActive(false);
  }
}

/** An option in whole milliseconds, which a timer can have; throws `InvalidError` if it is none. */
export function checkedTimeout(name: string, value: number): number {
  if (Number.isFinite(value) && value >= 0) return Math.min(Math.ceil(value), TIMEOUT_MS_MAX);
  throw invalid(`${name} is a number of milliseconds, not ${String(value)}`);
}
