/** What `update-…` does with the fields of a record. */

import { LIMITS } from "backscroll/language";
import { tooLarge } from "../errors.js";
import { jsonBytes } from "../validate.js";

/** More than any record has that is not too large, whatever its texts are: a character has at most 6 bytes in JSON. */
const CHARS_SURE = LIMITS.itemBytes / 6;

/** A record with some fields set, and without those that are null in the updates. */
export function updated<Item extends object>(stored: Item, updates: Partial<Record<keyof Item, unknown>>): Item {
  const item: Item = { ...stored, ...updates };
  for (const name in item) if (item[name] === null) Reflect.deleteProperty(item, name);
  return item;
}

/** Raise `too-large` for a record that would not fit into a reply; lists in tables of their own do not count. */
export function checkSize(item: object, name: string): void {
  let chars = 0;
  for (const value of Object.values(item)) chars += charsIn(value);
  if (chars <= CHARS_SURE) return;
  let size = 0;
  for (const value of Object.values(item))
    size += typeof value === "object" || typeof value === "string" ? jsonBytes(value) : 0;
  if (size <= LIMITS.itemBytes) return;
  throw tooLarge(
    "$.payload",
    `${name} would have ${String(size)} bytes in JSON; the limit is ${String(LIMITS.itemBytes)}`,
  );
}

/** The number of characters of a value, or of its JSON. */
function charsIn(value: unknown): number {
  if (typeof value === "string") return value.length;
  return typeof value === "object" ? JSON.stringify(value).length : 0;
}
