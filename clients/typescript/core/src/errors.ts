/**
 * The errors of this client. Each code of the protocol has a class, in `generated/errors.ts`, which extends one of the
 * two here that say on whose side the reason lies. A code of a later level is an error of the latter, with its `code`.
 */

/** What an error reply says besides its code and message. */
export interface ErrorDetails {
  code: string;
  retryable?: boolean;
  details?: Readonly<Record<string, unknown>> | undefined;
}

/** One command of a batch that cannot be executed. */
export interface FailedCommand {
  /** Its place in the batch. */
  index: number;
  code: string;
  /** Empty where the list became too long for messages. */
  message: string;
  path: string;
}

/** Base of all errors that a request may be rejected with, besides the reason of an `AbortSignal`. */
export abstract class BackscrollError extends Error {
  /** The name of the class, also where a bundler has shortened that. */
  abstract override name: string;
  /** Whose fault it is. */
  abstract readonly fault: "caller" | "daemon";
  /** The code of the protocol, such as `not-found`; it may be one of a later level. */
  readonly code: string;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
  /** More about the error, such as the `path` of the field that it is about. */
  readonly details: Readonly<Record<string, unknown>> | undefined;

  constructor(message: string, { code, retryable = false, details }: ErrorDetails) {
    super(message);
    this.code = code;
    this.retryable = retryable;
    this.details = details;
  }

  /** The commands of a batch that failed, in their order; empty if the error is about something else. */
  get failures(): FailedCommand[] {
    const listed: unknown = this.details?.["failures"];
    if (!Array.isArray(listed)) return [];
    return listed.map((each: Partial<FailedCommand> | null) => ({
      index: each?.index ?? -1,
      code: each?.code ?? "",
      message: each?.message ?? "",
      path: each?.path ?? "",
    }));
  }
}

/** The request cannot succeed as it is; sending it again does not help. It had no effect. */
export class CallerError extends BackscrollError {
  override name = "CallerError";
  readonly fault = "caller";
}

/** The daemon could not execute the request; `retryable` says whether it may succeed later. It had no effect. */
export class DaemonError extends BackscrollError {
  override name = "DaemonError";
  readonly fault = "daemon";
}

/** No reply came in time, or the client was closed: whether the request took effect is unknown. */
export class NoReplyError extends BackscrollError {
  override name = "NoReplyError";
  readonly fault = "daemon";

  constructor(message: string) {
    super(message, { code: "no-reply" });
  }
}

/**
 * A cursor is of another history of the scope, because its files were restored from a copy or it was deleted. What
 * changed since is unknown: read everything anew, then go on with `changes({ after: error.cursor })`.
 */
export class FeedGapError extends Error {
  override name = "FeedGapError";

  constructor(readonly cursor: string) {
    super(
      "the cursor belongs to another history of this scope, because its files were restored from a copy or it was " +
        "deleted: read everything anew, and then go on with changes({ after: error.cursor })",
    );
  }
}
