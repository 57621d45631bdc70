/**
 * Checks payloads before anything is done with them, by the schemas that are generated from the language's description.
 *
 * This is a small interpreter and no library, because those compile schemas with `eval`, which a content security policy
 * forbids, and none of them counts text in UTF-8 bytes, as the limits of the language do.
 */

import { checkedPayload as plainPayload, checkNumbers, LIMITS } from "backscroll/language";
import { invalid, resultTooLarge, tooLarge, unknownOperation } from "./errors.js";
import { RECORDS, SCHEMAS } from "./generated/schemas.js";

export interface ValueSchema {
  readonly type: "string" | "integer" | "boolean" | "object" | "array" | "record";
  /** The least number, characters or items. */
  readonly min?: number;
  /** The greatest number, bytes or items. */
  readonly max?: number;
  /** The texts that are allowed. */
  readonly values?: readonly string[];
  /** The items of a list; a list without it is free JSON. */
  readonly items?: ValueSchema;
  /** The fields of the items that identify them. */
  readonly key?: readonly string[];
  readonly record?: string;
}

export interface FieldSchema extends ValueSchema {
  readonly nullable?: boolean;
  readonly required?: boolean;
  readonly default?: unknown;
  /** Replies have the default too. */
  readonly always?: boolean;
}

export interface RecordSchema {
  /** Null clears a field; otherwise it is as if the field were left out. */
  readonly keepsNull?: boolean;
  readonly fields: Readonly<Record<string, FieldSchema>>;
}

export interface OperationSchema extends RecordSchema {
  readonly kind: "command" | "query";
}

/** The names of the operations that there are. */
export type Known = keyof typeof SCHEMAS;

/** A payload as it was checked: what may be null is left out instead. */
export type Checked<Payload> = { [Name in keyof Payload]: Exclude<Payload[Name], null> };

type Fields = Record<string, unknown>;

const MILLIS_PROBLEM = "the end of the year 9999: times are in milliseconds; is this one in microseconds?";

/** The name of an operation, if there is one of this kind. */
export function knownOperation(type: string, kind: "command" | "query"): Known {
  if (!isKnown(type)) throw unknownOperation(type, Object.keys(SCHEMAS));
  if (SCHEMAS[type].kind !== kind) throw invalid("$.type", `${JSON.stringify(type)} is not a ${kind}`);
  return type;
}

function isKnown(type: string): type is Known {
  return Object.hasOwn(SCHEMAS, type);
}

/**
 * A copy of a payload that is valid, with the defaults of what it leaves out, and the records in it as replies have
 * them. It is what a daemon reads: what JSON keeps of the payload.
 */
export function checkedPayload(type: Known, payload: object): Fields {
  const text = asJson(payload);
  const plain: unknown = JSON.parse(text);
  if (text.includes("\\ud")) checkPairs(plain, "$.payload");
  const schema: OperationSchema = SCHEMAS[type];
  if (text.length > LIMITS.freeJsonBytes / 3) checkFreeJson(plain, schema);
  const { arrival, ...fields } = asFields(plain, "$.payload");
  const decoded = decode(fields, schema, "$.payload", true);
  if (arrival !== undefined && arrival !== null) {
    throw invalid("$.payload.arrival", "the store in the browser takes events in their order only: leave it out");
  }
  checkFields(decoded, schema, "$.payload");
  return decoded;
}

function asJson(payload: object): string {
  const copy = plainPayload(payload).payload;
  checkNumbers(copy, "$.payload");
  const text = JSON.stringify(copy);
  if (text.length > LIMITS.bodyBytes / 3 && bytesOf(text) > LIMITS.bodyBytes) {
    const problem = `the payload has ${String(bytesOf(text))} bytes in JSON; the limit is ${String(LIMITS.bodyBytes)}`;
    throw resultTooLarge(problem);
  }
  return text;
}

/** The number of bytes of a text in UTF-8. */
export function bytesOf(text: string): number {
  let size = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit < 0x80) continue;
    if (unit < 0x800 || (unit >= 0xd800 && unit <= 0xdfff))
      size += 1; // each half of a pair has two bytes
    else size += 2;
  }
  return size;
}

/** The number of bytes of a value in JSON. */
export function jsonBytes(value: unknown): number {
  return bytesOf(JSON.stringify(value));
}

// Types, required fields, and lengths

function decode(given: Fields, schema: RecordSchema, path: string, isPayload = false): Fields {
  const values = new Map<string, unknown>();
  for (const [name, value] of Object.entries(given)) {
    const field = Object.hasOwn(schema.fields, name) ? schema.fields[name] : undefined;
    const at = `${path}.${name}`;
    if (field === undefined) throw invalid(at, "unknown field");
    if (value === null && field.nullable === true) {
      if (schema.keepsNull === true || field.required === true) values.set(name, null);
    } else values.set(name, decodeValue(value, field, at));
  }
  const decoded: Fields = {};
  for (const [name, field] of Object.entries(schema.fields)) {
    const value = values.has(name) ? values.get(name) : field.default;
    if (value === undefined) {
      if (field.required !== true) continue;
      const hint = field.nullable === true ? "; give null if it is unset" : "";
      throw invalid(`${path}.${name}`, `required field is missing${hint}`);
    }
    if (value !== field.default || field.always === true || isPayload) decoded[name] = value;
  }
  return decoded;
}

function decodeValue(value: unknown, schema: FieldSchema, path: string): unknown {
  switch (schema.type) {
    case "string":
      if (typeof value !== "string") throw wrongType(value, schema, path);
      checkText(value, schema, path);
      return value;
    case "integer":
      if (typeof value !== "number") throw wrongType(value, schema, path);
      checkNumber(value, schema, path);
      return value;
    case "boolean":
      if (typeof value !== "boolean") throw wrongType(value, schema, path);
      return value;
    case "array":
      if (!Array.isArray(value)) throw wrongType(value, schema, path);
      return decodeList(value, schema, path);
    case "object":
      return asFields(value, path);
    case "record":
      return decode(asFields(value, path), recordOf(schema), path);
  }
}

function decodeList(list: readonly unknown[], schema: ValueSchema, path: string): unknown[] {
  const { min = 0, max = Infinity, items } = schema;
  if (list.length < min) throw invalid(path, "must not be empty");
  if (list.length > max) throw tooLarge(path, `must have at most ${String(max)} items`);
  if (items === undefined) return [...list];
  return list.map((each, at) => decodeValue(each, items, `${path}[${String(at)}]`));
}

function checkText(text: string, { min = 0, max = Infinity, values }: ValueSchema, path: string): void {
  if (values !== undefined && !values.includes(text)) {
    throw invalid(path, `${JSON.stringify(text)} is not one of: ${values.join(", ")}`);
  }
  if (text.length < min) throw invalid(path, "must not be empty");
  if (text.length > max && charactersOf(text) > max)
    throw tooLarge(path, `must have at most ${String(max)} characters`);
}

/** The number of characters; a pair of surrogates is one. */
function charactersOf(text: string): number {
  let number = 0;
  for (let at = 0; at < text.length; at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1) number += 1;
  return number;
}

function checkNumber(value: number, { min = -Infinity, max = Infinity }: ValueSchema, path: string): void {
  if (!Number.isInteger(value)) throw invalid(path, "expected integer, got number with a fraction");
  if (value < min) throw invalid(path, `must be at least ${String(min)}`);
  if (value > max) {
    throw invalid(path, `must be at most ${String(max)}${max === LIMITS.millis ? `, ${MILLIS_PROBLEM}` : ""}`);
  }
}

function recordOf(schema: ValueSchema): RecordSchema {
  return RECORDS[schema.record ?? ""] ?? { fields: {} };
}

function asFields(value: unknown, path: string): Fields {
  if (isObject(value)) return value;
  throw wrongType(value, { type: "object" }, path);
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wrongType(value: unknown, schema: FieldSchema, path: string): Error {
  const expected = `${schema.type}${schema.nullable === true ? " or null" : ""}`;
  const got = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  return invalid(path, `expected ${expected}, got ${got}`);
}

// What types do not say: bytes of text, NUL, free JSON, keys that occur twice

function checkFields(record: Fields, schema: RecordSchema, path: string): void {
  for (const [name, field] of Object.entries(schema.fields)) {
    const value = record[name];
    if (value !== undefined && value !== null) checkValue(value, field, `${path}.${name}`);
  }
}

function checkValue(value: unknown, schema: ValueSchema, path: string): void {
  if (typeof value === "string") checkBytes(value, schema, path);
  else if (schema.type === "record") checkFields(asFields(value, path), recordOf(schema), path);
  else if (schema.items !== undefined && Array.isArray(value)) checkList(value, schema, schema.items, path);
  else if (schema.type === "object" || schema.type === "array") new JsonCheck().check(value, 1, path);
}

function checkBytes(text: string, { max }: ValueSchema, path: string): void {
  if (max === undefined) return;
  if (text.includes("\0")) throw invalid(path, "the text contains a NUL character, which is not allowed");
  if (text.length <= max / 3) return; // a UTF-16 unit has at most three bytes
  const size = bytesOf(text);
  if (size > max) throw tooLarge(path, `the text has ${String(size)} bytes; the limit is ${String(max)}`);
}

function checkList(list: readonly unknown[], schema: ValueSchema, items: ValueSchema, path: string): void {
  const keys = new Set<string>();
  for (const [at, each] of list.entries()) {
    const own = `${path}[${String(at)}]`;
    checkValue(each, items, own);
    if (schema.key === undefined || !isObject(each)) continue;
    const key = JSON.stringify(schema.key.map((name) => each[name] ?? null));
    if (keys.has(key)) throw invalid(own, "duplicate key: an earlier item of the list has the same key");
    keys.add(key);
  }
}

/** Checks free JSON, which may be neither nested too deeply nor too large. */
class JsonCheck {
  #values = 0;

  check(value: unknown, depth: number, path: string, root = path): void {
    this.#values += 1;
    if (this.#values > LIMITS.freeJsonValues) {
      throw tooLarge(root, `more than ${String(LIMITS.freeJsonValues)} JSON values`);
    }
    if (typeof value !== "object" || value === null) return;
    if (depth > LIMITS.freeJsonDepth) throw invalid(path, `nested deeper than ${String(LIMITS.freeJsonDepth)} levels`);
    const isList = Array.isArray(value);
    for (const [step, child] of Object.entries(value)) {
      this.check(child, depth + 1, isList ? `${path}[${step}]` : `${path}.${step}`, root);
    }
  }
}

/** The bytes of all free JSON in a payload, as far as that can be told before it is checked. */
function checkFreeJson(payload: unknown, schema: RecordSchema): void {
  const size = freeJsonIn(payload, schema);
  if (size <= LIMITS.freeJsonBytes) return;
  throw tooLarge("$.payload", `${String(size)} bytes of free JSON; the limit is ${String(LIMITS.freeJsonBytes)}`);
}

function freeJsonIn(value: unknown, schema: RecordSchema): number {
  if (!isObject(value)) return 0;
  let size = 0;
  for (const [name, field] of Object.entries(schema.fields)) size += freeJsonOf(value[name], field);
  return size;
}

function freeJsonOf(value: unknown, schema: ValueSchema): number {
  const { items } = schema;
  if (value === undefined) return 0;
  if (schema.type === "record") return freeJsonIn(value, recordOf(schema));
  if (items === undefined) return schema.type === "object" || schema.type === "array" ? jsonBytes(value) : 0;
  return items.type === "record" && Array.isArray(value)
    ? value.reduce((sum: number, each) => sum + freeJsonOf(each, items), 0)
    : 0;
}

/** Raises an error for a text with half of a surrogate pair, or a key, as that of the object that has it. */
function checkPairs(value: unknown, path: string): void {
  if (typeof value === "string" && !value.isWellFormed()) {
    throw invalid(path, "the text contains an unpaired surrogate; was it cut inside an emoji?");
  }
  if (typeof value !== "object" || value === null) return;
  const isList = Array.isArray(value);
  for (const [step, child] of Object.entries(value)) {
    checkPairs(step, path);
    checkPairs(child, isList ? `${path}[${step}]` : `${path}.${step}`);
  }
}
