/** The errors of this store: those of the language, with the paths that a daemon gives them. */

import {
  BackscrollError,
  ConflictError,
  ForbiddenError,
  InternalError,
  NotFoundError,
  StorageError,
  TooLargeError,
  UnavailableError,
  UnknownOperationError,
} from "backscroll/language";

/** What happens when a connection is lost, or the disk fails: the request may succeed with the next connection. */
const RETRYABLE = new Set(["AbortError", "InvalidStateError", "UnknownError", "TimeoutError"]);

type Details = Readonly<Record<string, unknown>>;

export { invalidAt as invalid } from "backscroll/language";

/** A text, list or payload is too large. */
export function tooLarge(path: string, problem: string): TooLargeError {
  return new TooLargeError(`${path}: ${problem}`, { code: "too-large", details: { path } });
}

/** A result or a whole payload is too large; there is no field that is wrong. */
export function resultTooLarge(problem: string): TooLargeError {
  return new TooLargeError(problem, { code: "too-large" });
}

export function notFound(path: string, problem: string): NotFoundError {
  return new NotFoundError(`${path}: ${problem}`, { code: "not-found", details: { path } });
}

export function conflict(path: string, problem: string, more: Details = {}): ConflictError {
  return new ConflictError(`${path}: ${problem}`, { code: "conflict", details: { path, ...more } });
}

export function unknownOperation(type: string, known: readonly string[]): UnknownOperationError {
  const problem = `the store in the browser has no operation ${JSON.stringify(type)}; it has ${known.join(", ")}`;
  return new UnknownOperationError(`$.type: ${problem}`, {
    code: "unknown-operation",
    details: { path: "$.type", known },
  });
}

/** A request without an account. */
export function noAccount(): ForbiddenError {
  return new ForbiddenError("no account is open: call switchScope first", { code: "forbidden" });
}

/** The store cannot be used now; another call may succeed. */
export function unavailable(problem: string): UnavailableError {
  return new UnavailableError(problem, { code: "unavailable", retryable: true });
}

/** The browser does not store, or not read what it has stored. */
export function storage(problem: string, retryable = false): StorageError {
  return new StorageError(problem, { code: "storage", retryable });
}

/** The error of the language for whatever was thrown while a request was executed. */
export function asStoreError(error: unknown): BackscrollError {
  if (error instanceof BackscrollError) return error;
  if (error instanceof DOMException) return ofDatabase(error);
  const problem = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new InternalError(`an error in the store in the browser: ${problem}`, { code: "internal" });
}

function ofDatabase(error: DOMException): StorageError {
  const said = `${error.name}: ${error.message}`;
  if (error.name === "QuotaExceededError") {
    return storage(`the browser has no more room for this site, so nothing was stored: make room (${said})`, true);
  }
  return storage(`the browser's database failed (${said})`, RETRYABLE.has(error.name));
}
