/** Numbers of JavaScript that JSON does not carry as they are. */

import { InvalidError } from "./generated/errors.js";

/** From here on JavaScript writes a number with an exponent, so in JSON it is no integer. */
const WRITTEN_AS_FLOAT = 1e21;

/**
 * Refuse numbers that JSON has no form for: it would write null, which clears a field. And integers beyond 2^53 - 1:
 * they may be others than were meant, because a number of JavaScript does not have all their digits.
 */
export function checkNumbers(value: unknown, path: string): void {
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw invalidAt(path, `${String(value)} is no number in JSON`);
    if (Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < WRITTEN_AS_FLOAT) {
      throw invalidAt(path, `${String(value)} is beyond 2^53 - 1: it may have lost digits; write it as text`);
    }
  } else if (Array.isArray(value)) {
    value.forEach((each, index) => {
      checkNumbers(each, `${path}[${String(index)}]`);
    });
  } else if (typeof value === "object" && value !== null) {
    for (const [name, each] of Object.entries(value)) checkNumbers(each, `${path}.${name}`);
  }
}

/** An `InvalidError` about the field at a path. */
export function invalidAt(path: string, problem: string): InvalidError {
  return new InvalidError(`${path}: ${problem}`, { code: "invalid", details: { path } });
}
