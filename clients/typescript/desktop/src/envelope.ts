/** What crosses the bridge: results and errors as plain data, and errors of the language made from them again. */

import {
  type BackscrollError,
  CallerError,
  DaemonError,
  ERRORS,
  InternalError,
  NoReplyError,
} from "backscroll/language";

/** An error of the language as data. */
export interface ErrorData {
  code: string;
  message: string;
  /** Whose fault it is; it gives a code of a later level its class. */
  fault: "caller" | "daemon";
  retryable: boolean;
  details?: Readonly<Record<string, unknown>>;
}

/** The answer to a bridged request. */
export type Envelope = { ok: true; result: unknown } | { ok: false; error: ErrorData };

/** The envelope of an error. */
export function errorEnvelope({ code, message, fault, retryable, details }: BackscrollError): Envelope {
  return { ok: false, error: { code, message, fault, retryable, ...(details && { details }) } };
}

/** The result in an envelope; throws the error in it, or `InternalError` if it is no envelope. */
export function unwrap(envelope: unknown): unknown {
  if (isRecord(envelope)) {
    if (envelope["ok"] === true && Object.hasOwn(envelope, "result")) return envelope["result"];
    if (envelope["ok"] === false && isErrorData(envelope["error"])) throw errorOf(envelope["error"]);
  }
  throw new InternalError("the main process answered with something else than an envelope of this package", {
    code: "internal",
  });
}

function errorOf({ code, message, fault, retryable, details }: ErrorData): BackscrollError {
  if (code === "no-reply") return new NoReplyError(message);
  // The code may be any text, and `constructor` and `__proto__` are names in every object.
  const known = Object.hasOwn(ERRORS, code) ? ERRORS[code] : undefined;
  const ErrorClass = known ?? (fault === "caller" ? CallerError : DaemonError);
  return new ErrorClass(message, { code, retryable, details });
}

function isErrorData(value: unknown): value is ErrorData {
  return (
    isRecord(value) &&
    typeof value["code"] === "string" &&
    typeof value["message"] === "string" &&
    (value["fault"] === "caller" || value["fault"] === "daemon") &&
    typeof value["retryable"] === "boolean" &&
    (value["details"] === undefined || isRecord(value["details"]))
  );
}

/** Whether a value is an object with names and values, and no list. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
