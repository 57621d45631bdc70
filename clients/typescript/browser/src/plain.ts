/**
 * Requests as plain data. What JSON would change silently is refused, by the same rules as at the bridge between a window
 * and the main process of a desktop application: a payload is either stored as it was given on both, or on neither.
 */

import { LIMITS } from "backscroll/language";
import { invalid, resultTooLarge } from "./errors.js";

/** A little more than the deepest payload: free JSON in the record of a list. */
const DEPTH_MAX = LIMITS.freeJsonDepth + 16;

/** A request's type and payload; throws `InvalidError` unless it has exactly these. */
export function checkedRequest(request: unknown): { type: string; payload: object } {
  if (!isPlainObject(request)) throw invalid("$", "expected a request, an object with `type` and `payload`");
  for (const name of Object.keys(request)) {
    if (name !== "type" && name !== "payload") throw invalid(`$.${name}`, "unknown field");
  }
  const { type, payload } = request as Partial<Record<string, unknown>>;
  if (typeof type !== "string") throw invalid("$.type", "expected the name of an operation");
  if (!isPlainObject(payload)) throw invalid("$.payload", "expected an object");
  return { type, payload };
}

/**
 * A copy of a payload. Of a proxy it has the target, of an instance of a class the fields; fields that are undefined are
 * left out. Throws `InvalidError` for what JSON has no form for, such as functions, maps and dates. What contains itself
 * ends at the limits of depth and size.
 */
export function plainCopy(payload: object): object {
  return new Copy().fieldsOf(payload, "$.payload", 0);
}

class Copy {
  /** About the bytes of the copy in JSON: a value has one, and what separates it from the next. */
  #size = 0;

  fieldsOf(value: object, path: string, depth: number): object {
    const entries: [string, unknown][] = [];
    for (const [name, each] of Object.entries(value) as [string, unknown][]) {
      if (each === undefined) continue;
      this.#grow(name.length);
      entries.push([name, this.#valueOf(each, `${path}.${name}`, depth + 1)]);
    }
    return Object.fromEntries(entries); // also `__proto__` is a name like others then
  }

  #valueOf(value: unknown, path: string, depth: number): unknown {
    this.#grow(typeof value === "string" ? value.length + 2 : 2);
    if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
      return value;
    }
    if (typeof value !== "object") throw invalid(path, `JSON has no form for a value of type ${typeof value}`);
    if (depth > DEPTH_MAX) throw invalid(path, `more than ${String(DEPTH_MAX)} levels, or it contains itself`);
    if (Array.isArray(value)) {
      return Array.from(value, (each: unknown, at) => this.#valueOf(each, `${path}[${String(at)}]`, depth + 1));
    }
    if (!isPlainObject(value)) throw invalid(path, `JSON has no form for an object of type ${kindOf(value)}`);
    return this.fieldsOf(value, path, depth);
  }

  #grow(by: number): void {
    this.#size += by;
    if (this.#size <= LIMITS.bodyBytes) return;
    throw resultTooLarge(`the payload has more than ${String(LIMITS.bodyBytes)} bytes in JSON, or contains itself`);
  }
}

/** Also an instance of a class, but nothing that is built in, such as a list or a date. */
function isPlainObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && kindOf(value) === "Object";
}

function kindOf(value: object): string {
  return Object.prototype.toString.call(value).slice("[object ".length, -1);
}
