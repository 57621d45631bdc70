/** The files of `schema/vectors`, whose README says what they mean, and what is printed of each vector. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

/** What every vector has. */
export interface Vector {
  name: string;
  needs?: string[];
}

export type VectorFile = Record<string, unknown>;

/** What this language lacks: MessagePack (the client has JSON only), 64-bit integers, and 1.0 apart from 1. */
const LACKING = new Set(["msgpack", "int64", "float"]);

export function load(directory: string, set: string): VectorFile {
  return JSON.parse(readFileSync(join(directory, `${set}.json`), "utf8")) as VectorFile;
}

/** What a vector needs and this language lacks. */
export function lackingFor({ needs = [] }: Vector): string[] {
  return needs.filter((each) => LACKING.has(each));
}

/** Throws if a vector or a step has a key that this runner does not know. */
export function checkKeys(value: object, known: readonly string[]): void {
  const unknown = Object.keys(value).filter((key) => !known.includes(key));
  if (unknown.length > 0) throw new Error(`unknown keys ${unknown.join(", ")}`);
}

/** What differs, in words; empty if nothing does. */
export function difference(what: string, expected: unknown, actual: unknown): string {
  if (isDeepStrictEqual(actual, expected)) return "";
  return `${what}: expected ${textOf(expected)}, got ${textOf(actual)}`;
}

/** A text with its placeholders replaced by what they stand for. */
export function expanded(text: string, expand: Readonly<Record<string, [string, number]>> = {}): string {
  return Object.entries(expand).reduce(
    (each, [name, [part, times]]) => each.replaceAll(name, part.repeat(times)),
    text,
  );
}

/** A result as the vectors have it: bytes are base64. */
export function plain(result: unknown): unknown {
  return result instanceof Uint8Array ? Buffer.from(result).toString("base64") : result;
}

function textOf(value: unknown): string {
  return value === undefined ? "nothing" : JSON.stringify(value);
}
