/** Histories: calls of a store, and what came of them. Needs no Node, so it also runs in pages. */

import {
  CallerError,
  OPERATIONS,
  type OperationName,
  type Payloads,
  type Results,
  type Store,
} from "backscroll/language";

/** The queries and commands that every store has. */
export const OPERATION_NAMES = [
  "save-message",
  "update-message",
  "delete-message",
  "clear-room-messages",
  "get-messages",
  "get-message-by-id",
  "get-message-page",
  "save-reaction",
  "remove-reaction",
  "get-reactions-for-message",
  "save-user",
  "update-user",
  "set-current-user-id",
  "get-user",
  "get-current-user",
  "get-users-by-room",
  "save-room",
  "update-room",
  "delete-room",
  "get-room",
  "get-all-rooms",
  "save-ban",
  "remove-ban",
  "get-bans-for-room",
  "is-user-banned",
  "save-attachment",
  "delete-attachments-for-message",
  "get-attachments-for-message",
  "get-all-attachments",
  "initialize",
  "clear-all-data",
  "get-changes",
] as const satisfies readonly OperationName[];

/** One call, or `read-all`, which asks for everything that can be read. `CursorOf` in a payload stands for a cursor. */
export interface Step {
  type: (typeof OPERATION_NAMES)[number] | "read-all";
  payload: unknown;
}

/**
 * A cursor that an earlier step gave: the one `cursorOf` places back among those of the same operation, or of any. It is
 * left out where there is none.
 */
export interface CursorOf {
  cursorOf: number;
  ofAny?: boolean;
}

interface Given {
  type: Step["type"];
  cursor: string;
}

/** What came of a call, in a form in which two stores can be compared. */
export type Outcome = { result: unknown } | { code: string; details: unknown };

/** Calls that take effect one after the other; where `isPipelined` they do not wait for one another. */
export interface History {
  steps: readonly Step[];
  isPipelined: boolean;
}

/** The ids that `read-all` asks for. */
export interface Pools {
  rooms: readonly string[];
  channels: readonly string[];
  messages: readonly string[];
  users: readonly string[];
}

/** The outcome of each step of a history, which begins in an empty account. */
export async function run(store: Store, { steps, isPipelined }: History, pools: Pools): Promise<Outcome[]> {
  const player = await Player.at(store, pools);
  const outcomes: Promise<Outcome>[] = [];
  for (const step of steps) {
    const waits = !isPipelined || isAlone(step);
    if (waits) await Promise.all(outcomes);
    outcomes.push(player.play(store, step));
    if (waits) await outcomes.at(-1);
  }
  return Promise.all(outcomes);
}

/** A query for changes may wait, and then is not answered in the order of the calls; a cursor has to be there before. */
export function isAlone({ type, payload }: Step): boolean {
  return type === "get-changes" || type === "read-all" || hasCursor(payload);
}

/** Plays the steps of one account, also by several stores, and knows the cursors that they gave. */
export class Player {
  readonly #pools: Pools;
  readonly #start: string;
  readonly #given: Given[][] = [];

  private constructor(pools: Pools, start: string) {
    this.#pools = pools;
    this.#start = start;
  }

  /** Begins at the end of the changes that there are, because the account may have been used and cleared before. */
  static async at(store: Store, pools: Pools): Promise<Player> {
    const { cursor } = await store.query({ type: "get-changes", payload: { after: "now" } });
    return new Player(pools, cursor);
  }

  /** Begins the step at once, and gives its outcome. */
  async play(store: Store, { type, payload }: Step): Promise<Outcome> {
    if (type === "read-all") return { result: await readAll(store, this.#pools, this.#start) };
    const given: Given[] = [];
    this.#given.push(given);
    const outcome = call(store, type, withCursors(type, payload, this.#given.flat(), this.#start), (cursors) => {
      given.push(...cursors.map((cursor) => ({ type, cursor })));
    });
    if (!isPastExpiry(payload)) return outcome;
    const afterwards = waitForExpiry(store, payload);
    return { ...(await outcome), ...{ afterwards: await afterwards } };
  }
}

/** Send a request by a name that is known only at run time. */
export function send(store: Store, type: OperationName, payload: unknown): Promise<unknown> {
  const request = { type, payload: payload as Payloads[OperationName] };
  return OPERATIONS[type].kind === "query" ? store.query(request) : store.command(request);
}

async function call(
  store: Store,
  type: OperationName,
  payload: unknown,
  tell: (cursors: string[]) => void = () => undefined,
): Promise<Outcome> {
  try {
    const result = await send(store, type, payload);
    if (type === "get-message-page") return pageOutcome(result as Results["get-message-page"], tell);
    if (type === "get-changes") return changesOutcome(result as Results["get-changes"], tell);
    return { result };
  } catch (error) {
    return errorOutcome(error);
  }
}

function pageOutcome(page: Results["get-message-page"], tell: (cursors: string[]) => void): Outcome {
  const { olderCursor, newerCursor, ...rest } = page;
  tell([olderCursor, newerCursor].filter((each) => each !== undefined));
  return {
    result: { ...rest, hasOlderCursor: olderCursor !== undefined, hasNewerCursor: newerCursor !== undefined },
  };
}

/** Leaves out the cursor, and of each change when and by which command it was made. */
function changesOutcome(page: Results["get-changes"], tell: (cursors: string[]) => void): Outcome {
  const { cursor, changes, ...rest } = page;
  tell([cursor]);
  return { result: { ...rest, changes: changes.map(timeless) } };
}

function timeless(change: Results["get-changes"]["changes"][number]): object {
  return without(change, "seq", "at", "requestId");
}

/** A record without some of its fields. */
export function without(record: object, ...names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.includes(name)));
}

function errorOutcome(error: unknown): Outcome {
  if (error instanceof Error && "code" in error && typeof error.code === "string" && "details" in error) {
    const isExpected = error instanceof CallerError;
    return { code: error.code, details: isExpected ? (error.details ?? null) : error.message };
  }
  return { code: "not an error of the language", details: String(error) };
}

function isCursorOf(value: object): value is CursorOf {
  return "cursorOf" in value;
}

function hasCursor(payload: unknown): boolean {
  if (typeof payload !== "object" || payload === null) return false;
  return isCursorOf(payload) || Object.values(payload).some(hasCursor);
}

/** The payload with the cursors that it stands for; changes are asked for after the start of the history. */
function withCursors(type: OperationName, payload: unknown, cursors: readonly Given[], start: string): unknown {
  const replaced = replaceCursors(type, payload, cursors);
  if (type !== "get-changes" || typeof replaced !== "object" || replaced === null) return replaced;
  return "after" in replaced && (replaced.after ?? null) !== null ? replaced : { ...replaced, after: start };
}

function replaceCursors(type: OperationName, payload: unknown, cursors: readonly Given[]): unknown {
  if (!hasCursor(payload) || typeof payload !== "object" || payload === null) return payload;
  if (isCursorOf(payload)) {
    const fitting = cursors.filter((each) => payload.ofAny === true || each.type === type);
    return fitting.at(-1 - (payload.cursorOf % Math.max(fitting.length, 1)))?.cursor;
  }
  if (Array.isArray(payload)) return payload.map((each: unknown) => replaceCursors(type, each, cursors));
  return Object.fromEntries(
    Object.entries(payload).map(([name, value]) => [name, replaceCursors(type, value, cursors)]),
  );
}

function expiringOf(payload: unknown): { id: unknown; expiresAt: unknown } {
  const { message, messageId, updates } = (payload ?? {}) as Record<string, unknown>;
  const saved = (message ?? {}) as Record<string, unknown>;
  const updated = (updates ?? {}) as Record<string, unknown>;
  return { id: saved["id"] ?? messageId, expiresAt: saved["expiresAt"] ?? updated["expiresAt"] };
}

function isPastExpiry(payload: unknown): boolean {
  const { expiresAt } = expiringOf(payload);
  return typeof expiresAt === "number" && expiresAt <= Date.now();
}

/** A store deletes an expired message when it likes, but before it answers a query that would show the message. */
function waitForExpiry(store: Store, payload: unknown): Promise<Outcome> {
  return call(store, "get-message-by-id", { messageId: expiringOf(payload).id });
}

/** Everything that can be read, by what was asked, and what changed after a cursor. */
export async function readAll(store: Store, pools: Pools, start: string): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  const ask = async (type: OperationName, payload: object): Promise<void> => {
    const outcome = await call(store, type, payload);
    found[`${type} ${JSON.stringify(payload)}`] = outcome;
  };
  const walk = async (type: "get-message-page" | "get-changes", payload: object, back = false): Promise<void> => {
    const name = `${type} ${JSON.stringify(without(payload, "after"))}`;
    found[back ? `${name}, back` : name] = await pagesOf(store, type, payload, back);
  };
  const { rooms, channels, messages, users } = pools;
  await Promise.all([
    ...["get-all-rooms", "get-all-attachments", "get-current-user"].map((type) => ask(type as OperationName, {})),
    ...rooms.flatMap((roomId) =>
      (["get-room", "get-users-by-room", "get-bans-for-room", "get-messages"] as const).map((type) =>
        ask(type, { roomId }),
      ),
    ),
    ...messages.flatMap((messageId) => [
      ask("get-message-by-id", { messageId, attachments: true }),
      ask("get-reactions-for-message", { messageId }),
      ask("get-attachments-for-message", { messageId }),
    ]),
    ...users.map((userId) => ask("get-user", { userId })),
    ...rooms.flatMap((roomId) => [
      walk("get-message-page", { roomId, limit: 2, attachments: true }, true),
      walk("get-message-page", { roomId, limit: 3, aroundTime: 0, includeDeleted: false }),
      walk("get-message-page", { roomId, limit: 2, pinned: true }, true),
      ...messages.map((around) => ask("get-message-page", { roomId, limit: 3, around })),
      ...channels.map((channelId) => walk("get-message-page", { roomId, limit: 2, channelId, aroundTime: 0 })),
    ]),
    walk("get-changes", { after: start }),
    walk("get-changes", { after: start, limit: 3, values: false }),
  ]);
  return found;
}

const PAGES_MAX = 1_000;

/** All pages from a first one on: of messages up to an end, of changes until there are no more. */
async function pagesOf(
  store: Store,
  type: "get-message-page" | "get-changes",
  payload: object,
  back: boolean,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  let next: object = payload;
  while (outcomes.length < PAGES_MAX) {
    let given: string[] = [];
    const outcome = await call(store, type, next, (cursors) => (given = cursors));
    outcomes.push(outcome);
    const { hasOlder, hasNewer, more } = ("result" in outcome ? outcome.result : {}) as Record<string, unknown>;
    const goesOn = type === "get-changes" ? more === true : (back ? hasOlder : hasNewer) === true;
    const cursor = back ? given[0] : given.at(-1);
    if (!goesOn || cursor === undefined) return outcomes;
    next = { ...without(payload, "aroundTime"), [back ? "before" : "after"]: cursor };
  }
  throw new Error(`${type} has more than ${String(PAGES_MAX)} pages`);
}
