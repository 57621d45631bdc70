/** Requests as plain data, which cross a bridge and go into a database as they are. */

import { TooLargeError } from "./generated/errors.js";
import { LIMITS } from "./generated/limits.js";
import { invalidAt } from "./numbers.js";

/** A little more than the deepest payload that the daemon takes: free JSON in a message in a batch. */
const DEPTH_MAX = LIMITS.freeJsonDepth + 16;

/** A request's type and payload; throws `InvalidError` unless it has exactly these. */
export function checkedRequest(request: unknown): { type: string; payload: Record<string, unknown> } {
  if (!isPlainObject(request)) {
    throw invalidAt("$", 'expected a request, such as { type: "get-room", payload: { roomId: "home" } }');
  }
  checkNames(request, ["type", "payload"], "$");
  const { type, payload } = request;
  if (typeof type !== "string") throw invalidAt("$.type", "expected the name of an operation");
  if (!isPlainObject(payload)) {
    throw invalidAt("$.payload", 'expected an object, such as { roomId: "home" }');
  }
  return { type, payload };
}

/** Refuse other names than these. */
export function checkNames(value: Record<string, unknown>, names: readonly string[], path: string): void {
  for (const name of Object.keys(value)) {
    if (!names.includes(name)) throw invalidAt(`${path}.${name}`, "unknown field");
  }
}

/**
 * A copy of a payload as plain data, and how many bytes it has in JSON, at least. Of a proxy there is its target in the
 * copy, and of an instance of a class its fields: both do not cross every bridge.
 *
 * Throws `InvalidError` for what JSON has no form for or would change silently, such as functions, maps and dates, and
 * `TooLargeError` for a payload over its limit. Its time is bounded too: a small payload in which the same list occurs
 * again and again may be endless when written out.
 */
export function checkedPayload(
  payload: object,
  bytesFields: readonly string[] = [],
): { payload: Record<string, unknown>; bytes: number } {
  let bytes = 0;
  const grow = (by: number): void => {
    bytes += by;
    if (bytes > LIMITS.bodyBytes) {
      const problem = `the payload has more than ${String(LIMITS.bodyBytes)} bytes, or contains itself`;
      throw new TooLargeError(problem, { code: "too-large" });
    }
  };
  const copied = (value: unknown, path: string, depth: number): unknown => {
    grow(2);
    if (typeof value === "string") grow(value.length);
    if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
      return value;
    }
    if (typeof value !== "object") throw invalidAt(path, `JSON has no form for a value of type ${typeof value}`);
    if (depth > DEPTH_MAX) throw invalidAt(path, `more than ${String(DEPTH_MAX)} levels, or it contains itself`);
    if (Array.isArray(value)) {
      const copy: unknown[] = [];
      for (let index = 0; index < value.length; index += 1) {
        copy.push(copied(value[index], `${path}[${String(index)}]`, depth + 1));
      }
      return copy;
    }
    const kind = kindOfObject(value);
    if (kind !== "Object") throw invalidAt(path, `JSON has no form for an object of type ${kind}`);
    return fieldsOf(value, path, depth);
  };
  const fieldsOf = (value: object, path: string, depth: number): Record<string, unknown> => {
    const entries: [string, unknown][] = [];
    for (const [name, each] of Object.entries(value) as [string, unknown][]) {
      grow(name.length);
      if (depth === 0 && each instanceof Uint8Array && bytesFields.includes(name)) {
        grow(each.length);
        entries.push([name, each]);
      } else if (each !== undefined) entries.push([name, copied(each, `${path}.${name}`, depth + 1)]);
    }
    return Object.fromEntries(entries); // which has no setter for `__proto__`
  };
  return { payload: fieldsOf(payload, "$.payload", 0), bytes };
}

/** Whether a value is an object, also an instance of a class, but nothing that is built in, such as a list or a date. */
function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && kindOfObject(value) === "Object";
}

/** `Object` for plain objects and for instances of classes, and otherwise the name of what is built in. */
function kindOfObject(value: object): string {
  return Object.prototype.toString.call(value).slice("[object ".length, -1);
}
