/** Draws histories: calls with every field of their payloads, most of them valid, whose values hit one another. */

import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { type CursorOf, type History, OPERATION_NAMES, type Pools, type Step, without } from "./steps.js";

/** What is used of the JSON Schema of a value. */
interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  type?: string;
  enum?: string[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  "x-unit"?: string;
}

interface Language {
  operations: Record<string, { payload: Schema }>;
  $defs: Record<string, Schema>;
}

const LEVEL = new URL("../../../../../schema/levels/1.json", import.meta.url);
const { operations, $defs } = JSON.parse(readFileSync(LEVEL, "utf8")) as Language;

/**
 * Few ids, so that calls hit one another. Where browsers compare text by UTF-16 units, "😀" comes before "ﬁ" and "�",
 * which by UTF-8 bytes come before it.
 */
export const POOLS: Pools & { attachments: readonly string[]; emojis: readonly string[]; others: readonly string[] } = {
  rooms: ["r", "ﬁ", "😀"],
  channels: ["general", "😀"],
  messages: ["m", "m\u0001", "ﬁm", "\uFFFD", "😀", "é"],
  users: ["ada", "\uFFFDb", "😀", "ada "],
  attachments: ["a", "ﬁ", "😀", "😀a"],
  emojis: ["👍", "ﬁ", "❤️"],
  others: ["x", "😀", "ﬁ"],
};
const TEXTS = ["", "hello", "naïve 😀", "ﬁ\r\n\u2028\ufeff", "[Message deleted]", '{"a": [1]}', "null"];
const PUBKEYS = ["k1", "k2", ""];
const FUTURE = [4_102_444_800_000, 253_402_300_799_999];
const TIMES = [1_000, 1_000, 2_000, 0, 253_402_300_799_999];
const NUMBERS = [0, 1, -1, 2, 9_007_199_254_740_991];

/** The pool of an id, by the record that it is a field of, and its name. */
const POOL_OF_FIELD: Record<string, readonly string[]> = {
  "RoomInput.id": POOLS.rooms,
  "RoomPositionInput.id": POOLS.rooms,
  roomId: POOLS.rooms,
  rooms: POOLS.rooms,
  "MessageInput.id": POOLS.messages,
  messageId: POOLS.messages,
  around: POOLS.messages,
  replyToId: POOLS.messages,
  threadId: POOLS.messages.slice(0, 2),
  "AttachmentInput.id": POOLS.attachments,
  "AttachmentPositionInput.id": POOLS.attachments,
  emoji: POOLS.emojis,
  channelId: POOLS.channels,
  "ChannelInput.id": POOLS.channels,
  "CategoryInput.id": POOLS.channels,
  categoryId: POOLS.channels,
  "UserInput.id": POOLS.users,
  "UserUpdatesInput.id": POOLS.users,
  "RoomMemberInput.id": POOLS.users,
  oderId: POOLS.users,
  userId: POOLS.users,
  senderId: POOLS.users,
  bannedBy: POOLS.users,
  mentions: POOLS.users,
};

/** The fields by which items of a list are told apart. */
const KEYS: Record<string, readonly string[]> = {
  ReactionInput: ["oderId", "emoji"],
  RoomMemberInput: ["oderId"],
  ChannelInput: ["id"],
  CategoryInput: ["id"],
};

/** Optional fields that change what other calls see are drawn more often than those that are only kept. */
const OFTEN = new Set([
  ...["channelId", "threadId", "pinnedAt", "ordinal", "reactions", "isDeleted", "timestamp", "oderId", "count"],
  ...["createdAt", "joinedAt", "members", "roomId", "content", "limit", "offset", "before", "after", "around"],
  ...["includeDeleted", "childLists", "attachments", "pinned", "aroundTime", "expiresAt", "userId", "channels"],
  ...["categories", "position", "rooms", "nouns", "values", "pubkey", "id"],
]);

/** Changes that would have other times on each store: what `arrival` does is the daemon's alone. */
const LEFT_OUT = new Set(["arrival", "damaged"]);

const ABSENT = Symbol("absent");

/** How often a call is drawn. */
const WEIGHTS: Partial<Record<Step["type"], number>> = {
  "save-message": 50,
  "update-message": 25,
  "delete-message": 8,
  "save-reaction": 20,
  "remove-reaction": 8,
  "save-attachment": 16,
  "save-user": 16,
  "update-user": 8,
  "save-room": 24,
  "update-room": 12,
  "save-ban": 10,
  "get-message-page": 35,
  "get-messages": 12,
  "get-changes": 14,
  "clear-room-messages": 2,
  "delete-room": 2,
  "clear-all-data": 1,
  initialize: 1,
};
const USUAL_WEIGHT = 5;
const STEPS_MAX = 90;

/** Histories of up to 90 steps; some 40 in the mean. */
export function histories(names: readonly Step["type"][] = OPERATION_NAMES): fc.Arbitrary<History> {
  const calls = names.map((type) => ({ weight: WEIGHTS[type] ?? USUAL_WEIGHT, arbitrary: stepOf(type) }));
  const readAll = fc.constant<Step>({ type: "read-all", payload: {} });
  const step = fc.oneof(...calls, { weight: 3, arbitrary: readAll });
  return fc.record({
    steps: fc.array(step, { minLength: 1, maxLength: STEPS_MAX, size: "max" }),
    isPipelined: fc.boolean(),
  });
}

function stepOf(type: Step["type"]): fc.Arbitrary<Step> {
  const schema = operations[type]?.payload;
  if (schema === undefined) throw new Error(`the language has no operation ${type}`);
  const valid = objectOf(schema, type);
  const payload = fc.oneof(
    { weight: 18, arbitrary: valid },
    { weight: 1, arbitrary: spoilt(valid, [...WRONG, ...FRACTIONS]) },
    { weight: 1, arbitrary: spoilt(spoilt(valid, WRONG), WRONG) },
  );
  return payload.map((each) => ({ type, payload: each }));
}

function valueOf(schema: Schema, record: string, field: string): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split("/").at(-1) ?? "";
    return objectOf($defs[name] ?? {}, name);
  }
  if (schema.anyOf !== undefined) {
    const [value, ...others] = schema.anyOf.map((each) => valueOf(each, record, field));
    if (value === undefined) throw new Error(`${record}.${field} has no type`);
    return fc.oneof({ weight: 5, arbitrary: value }, ...others);
  }
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  switch (schema.type) {
    case "string":
      return textOf(schema, record, field);
    case "integer":
      return integerOf(schema, field);
    case "boolean":
      return fc.boolean();
    case "null":
      return fc.constant(null);
    case "array":
      return listOf(schema, record, field);
    case "object":
      return schema.properties === undefined ? freeObject() : objectOf(schema, record);
    default:
      return freeJson();
  }
}

/** A record with its required fields, and some of the others. */
function objectOf({ properties = {}, required = [] }: Schema, record: string): fc.Arbitrary<unknown> {
  const fields = Object.entries(properties)
    .filter(([name]) => !LEFT_OUT.has(name) && !(record.endsWith("MessageInput") && name === "attachments"))
    .map(([name, schema]): [string, fc.Arbitrary<unknown>] => {
      const value = valueOf(schema, record, name);
      if (required.includes(name)) return [name, value];
      const weight = record === "get-message-page" ? 5 : OFTEN.has(name) ? 3 : 9;
      const absent = { weight, arbitrary: fc.constant(ABSENT) };
      return [name, fc.oneof({ withCrossShrink: true }, absent, { weight: 1, arbitrary: value })];
    });
  const drawn = fc.record(Object.fromEntries(fields)).map(withoutAbsent);
  if (record === "ReactionInput") return drawn.map(withOneKindOfReactor);
  if (record === "MessageInput") return drawn.map((each) => withOwnReactions(each, each["id"]));
  if (record === "update-message") {
    return drawn.map(({ updates, ...rest }) => {
      return { ...rest, updates: withOwnReactions(updates as Record<string, unknown>, rest["messageId"]) };
    });
  }
  return record === "get-message-page" ? drawn.chain(withPlace) : drawn;
}

function withoutAbsent(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== ABSENT));
}

/** A reaction of a user, or a count of users whom nobody names, mostly. */
function withOneKindOfReactor(reaction: Record<string, unknown>): Record<string, unknown> {
  if (typeof reaction["oderId"] === "string") {
    return without(reaction, "count");
  }
  return { ...reaction, count: reaction["count"] ?? 1 };
}

function withOwnReactions(message: Record<string, unknown>, messageId: unknown): Record<string, unknown> {
  if (!Array.isArray(message["reactions"])) return message;
  return { ...message, reactions: message["reactions"].map((each: object) => ({ ...each, messageId })) };
}

function cursorOf(): fc.Arbitrary<CursorOf> {
  return fc.record({ cursorOf: fc.nat(5), ofAny: fc.constantFrom(false, false, false, false, true) });
}

/** Mostly only one place in a page, and a cursor that a page gave. */
function withPlace(payload: Record<string, unknown>): fc.Arbitrary<unknown> {
  const rest = without(payload, "before", "after", "around", "aroundTime");
  const cursor = cursorOf();
  const around = fc.record({ around: oftenFirst(POOLS.messages) });
  const aroundTime = fc.record({ aroundTime: fc.constantFrom(...TIMES) });
  return fc.oneof(
    { weight: 4, arbitrary: fc.constant(rest) },
    { weight: 2, arbitrary: fc.oneof(around, aroundTime).map((place) => ({ ...rest, ...place })) },
    { weight: 1, arbitrary: fc.constant(payload) },
    { weight: 2, arbitrary: cursor.map((before) => ({ ...rest, before })) },
    { weight: 2, arbitrary: cursor.map((after) => ({ ...rest, after })) },
  );
}

function textOf({ minLength, maxLength = 0 }: Schema, record: string, field: string): fc.Arbitrary<unknown> {
  const pool = POOL_OF_FIELD[`${record}.${field}`] ?? POOL_OF_FIELD[field];
  if (pool !== undefined) return oftenFirst(pool);
  if (record === "get-changes" && field === "after") {
    return fc.oneof({ weight: 4, arbitrary: cursorOf() }, fc.constant("now"));
  }
  if (field === "pubkey") return fc.constantFrom(...PUBKEYS);
  if (minLength === undefined) return fc.constantFrom(...TEXTS);
  const longest = "x".repeat(maxLength);
  return fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...POOLS.others) }, fc.constant(longest));
}

/** One of a pool, the first as often as all others together. */
function oftenFirst(pool: readonly string[]): fc.Arbitrary<string> {
  return fc.oneof(fc.constant(pool[0] ?? ""), fc.constantFrom(...pool));
}

function integerOf({ minimum = 0, maximum = 0, "x-unit": unit }: Schema, field: string): fc.Arbitrary<number> {
  if (field === "limit") return fc.constantFrom(1, 2, 3, 1, 2, 3, 4, 10, maximum);
  if (field === "offset") return fc.constantFrom(0, 1, 2, 3, maximum);
  if (field === "waitMs") return fc.constantFrom(0, 1);
  if (field === "expiresAt") return fc.constantFrom(...FUTURE, ...FUTURE, 1_000);
  if (unit?.startsWith("ms")) return fc.constantFrom(...TIMES);
  return fc.constantFrom(...NUMBERS.filter((each) => each >= minimum && each <= maximum));
}

function listOf({ items = {} }: Schema, record: string, field: string): fc.Arbitrary<unknown[]> {
  const item = valueOf(items, record, field);
  const maxLength = 3;
  const keys = KEYS[items.$ref?.split("/").at(-1) ?? ""];
  const minLength = field === "rooms" || field === "nouns" ? 1 : 0;
  if (keys === undefined) return fc.array(item, { minLength, maxLength });
  const selector = (each: unknown): string =>
    JSON.stringify(keys.map((key) => (each as Record<string, unknown>)[key] ?? null));
  return fc.oneof(
    { weight: 9, arbitrary: fc.uniqueArray(item, { maxLength, selector }) },
    fc.array(item, { maxLength }),
  );
}

function freeJson(): fc.Arbitrary<unknown> {
  return fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom<unknown>(null, 0.1, 1e21, 2 ** 60, "a\0b", [[]], {}));
}

function freeObject(): fc.Arbitrary<unknown> {
  const key = fc.oneof(
    fc.constantFrom("a", "b", "constructor", "😀", ""),
    fc.string({ unit: "grapheme", maxLength: 3 }),
  );
  return fc.oneof(
    { weight: 6, arbitrary: fc.dictionary(key, freeJson(), { maxKeys: 3, noNullPrototype: true }) },
    { weight: 1, arbitrary: fc.integer({ min: 29, max: 34 }).map(nested) },
    { weight: 1, arbitrary: fc.integer({ min: 2_030, max: 2_050 }).map((length) => ({ a: "x".repeat(length) })) },
  );
}

/** An object of so many levels. */
function nested(levels: number): object {
  let value: object = {};
  for (let level = 1; level < levels; level += 1) value = level % 2 ? [value] : { a: value };
  return Array.isArray(value) ? { a: value } : value;
}

// What is not valid

const WRONG: readonly unknown[] = [
  ...[null, undefined, true, 0, 1, -1, 501, 2 ** 53, 1e20, NaN, -Infinity, 253_402_300_800_000],
  ...["", "x", "a\0b", "\ud800", "😀\udc00", "x".repeat(513), "é".repeat(257), "é".repeat(256), "x".repeat(65)],
  ...[[], {}, [null], [""], { a: 1 }, [{}], ["x", "x"]],
];

/**
 * Numbers that are no integers. Beside another mistake they are not drawn: a daemon names that other one, because it
 * decodes such a payload twice, and IndexedDB the one that comes first.
 */
const FRACTIONS: readonly unknown[] = [1.5, 1e300];

/** How a payload is spoilt: a value replaced, a field left out, or one added. */
type Change = { replace: unknown } | { remove: true } | { add: unknown };

/** Payloads with one thing changed, mostly to a wrong value. */
function spoilt(valid: fc.Arbitrary<unknown>, wrong: readonly unknown[]): fc.Arbitrary<unknown> {
  const change: fc.Arbitrary<Change> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ replace: fc.constantFrom(...wrong) }) },
    { weight: 1, arbitrary: fc.constant({ remove: true } as const) },
    { weight: 1, arbitrary: fc.record({ add: fc.constantFrom<unknown>(1, null) }) },
  );
  return fc.tuple(valid, fc.nat(1_000), change).map(([payload, at, each]) => {
    const places = placesIn(payload).slice("replace" in each ? 1 : 0); // a payload is always an object
    const place = places[at % places.length];
    return place === undefined ? payload : changed(payload, place, each);
  });
}

/** The paths of all values in a value, itself first. */
function placesIn(value: unknown, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== "object" || value === null || "cursorOf" in value || path.length > 4) return [path];
  return [path, ...Object.entries(value).flatMap(([name, each]) => placesIn(each, [...path, name]))];
}

function changed(value: unknown, [name, ...path]: readonly string[], change: Change): unknown {
  if (name === undefined) return changedHere(value, change);
  const copy: unknown = Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) };
  const fields = copy as Record<string, unknown>;
  if (path.length === 0 && "remove" in change) {
    if (Array.isArray(copy)) copy.splice(Number(name), 1);
    else Reflect.deleteProperty(fields, name);
  } else {
    // `undefined` in a list is refused in a browser and at the bridge, while the client for Node sends null for it.
    const each = changed(fields[name], path, change);
    fields[name] = each === undefined && Array.isArray(copy) ? null : each;
  }
  return copy;
}

function changedHere(value: unknown, change: Change): unknown {
  if ("replace" in change) return change.replace;
  if ("remove" in change) return {};
  if (typeof value !== "object" || value === null || Array.isArray(value)) return change.add;
  return { ...value, unknownField: change.add };
}
