/**
 * Keys of the database. Text is in them as its UTF-8 bytes: a browser compares strings by their UTF-16 units, which puts
 * an emoji before "ﬀ", and the language says that text is compared by its UTF-8 bytes.
 */

/** Text in a key. */
export type Bytes = Uint8Array<ArrayBuffer>;
/** A part of a key. */
export type Part = Bytes | number;

const ENCODER = new TextEncoder();

/** The bytes of a text, as they are in keys. That of the empty text is a zero, which is in no text: keys are not empty. */
export function bytes(text: string): Bytes {
  return ENCODER.encode(text === "" ? "\0" : text);
}

/** All keys that begin with these parts; a list sorts after all numbers and bytes. */
export function startingWith(...parts: Part[]): IDBKeyRange {
  return IDBKeyRange.bound(parts, [...parts, []]);
}

/** The keys that begin with `parts`, after the one that goes on with `position`. */
export function after(parts: Part[], position: Part[]): IDBKeyRange {
  return IDBKeyRange.bound([...parts, ...position], [...parts, []], true);
}

/** Whether two keys are equal. */
export function isSame(one: Bytes, other: Bytes): boolean {
  return indexedDB.cmp(one, other) === 0;
}
