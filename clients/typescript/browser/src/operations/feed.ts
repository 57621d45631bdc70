/**
 * The feed: what changed after a cursor, with what is stored now.
 *
 *     commands ──▶ changes that the filter lets through ──▶ the last one of each item ──▶ with values ──▶ page
 *
 * Values are read in the transaction of the page. They may be newer than the change that they are told with; then a later
 * change tells of the item again, and until it is told `more` is true. A cursor is the place of the next change to tell,
 * in the history of one database.
 */

import type { Change, ChangePage, GetChanges, ItemChange } from "backscroll/language";
import { LIMITS, TooLargeError } from "backscroll/language";
import { readCursor, writeCursor } from "../cursors.js";
import { invalid } from "../errors.js";
import { after, bytes, startingWith } from "../keys.js";
import type { CommandRow, HistoryRow, Reads } from "../layout.js";
import { type Checked, jsonBytes } from "../validate.js";
import { findBan } from "./bans.js";
import { withLists } from "./lists.js";
import { findMember, roomWithoutMembers } from "./rooms.js";
import { find } from "./rows.js";
import { currentUserId, findByOderId } from "./users.js";

type Query = Checked<GetChanges> & { limit: number; values: boolean };

/** How far a list that replaced another was told: the place of the last item, as the list is ordered. */
type Told = [time: number, ordinal: number, id: string];

/** The next change to tell: its command, its number there, and how far the list that stands for it was told. */
interface Place {
  seq: number;
  number: number;
  told: Told | null;
}

/** A change to tell, and where to begin in order to tell it again. */
interface Found {
  place: Place;
  command: CommandRow;
  change: Change;
}

/** Changes to tell, in order, and the place after them. */
interface Walk {
  found: Found[];
  end: Place;
}

/** Instead of a cursor: the end of the feed. */
export const NOW = "now";
/** That are looked at for one page, whatever the filter lets through. */
const COMMANDS_MAX = 2_000;
const CHANGES_MAX = 10_000;
const COMMANDS_AT_ONCE = 200;
/** Of a change with its value, so that it fits into a reply. */
const ITEM_BYTES_MAX = LIMITS.replyBytes - 16 * 1024;
const FORMAT = 1;
const NOUNS_IN_ROOMS = new Set(["message", "room", "member", "ban"]);

export async function getChanges(query: Query, work: Reads): Promise<ChangePage> {
  const head = await historyOf(work);
  if (query.after === NOW) return { changes: [], cursor: cursorAtEnd(head), more: false };
  const cursor = query.after === undefined ? undefined : cursorIn(query.after);
  if (cursor && !isOf(head, cursor)) return { changes: [], cursor: cursorAtEnd(head), more: false, gap: true };
  const place = cursor?.place ?? { seq: head.from, number: 0, told: null };
  let walked = await walk(place, query, head, work);
  const first = walked.found[0];
  if (query.values && first?.change.kind === "replaced") walked = await listOf(first, query.limit, work);
  const { changes, end } = await tell(walked, query.values, work);
  return { changes, cursor: textOf(end, head), more: end.seq <= head.seq };
}

/** Whether a query may wait instead of getting this page. */
export function isNothingNew(query: GetChanges, page: ChangePage): boolean {
  return page.changes.length === 0 && !page.more && page.gap !== true && query.after !== NOW;
}

/** The history of the database, and its last command. */
export async function historyOf({ tx }: Reads): Promise<HistoryRow> {
  const row = await tx.objectStore("meta").get("history");
  if (row?.key !== "history") throw new Error("the database has no history");
  return row;
}

/** What listeners and the feed tell of a change, without its value. */
export function itemChange({ seq, at, requestId }: CommandRow, change: Change, isGone = false): ItemChange {
  const { noun, kind, id, roomId, channelId } = change;
  const isNobody = noun === "current-user" && id === undefined;
  return {
    seq,
    at,
    requestId,
    noun,
    ...(id !== undefined && { id }),
    ...(roomId !== undefined && { roomId }),
    ...(channelId !== undefined && { channelId }),
    ...((isGone || isNobody || kind === "gone" || kind === "cleared") && { gone: true }),
  } as ItemChange; // `noun` tells which of the records it is
}

// Cursors

interface Cursor {
  place: Place;
  history: string;
  asOf: number;
}

function textOf({ seq, number, told }: Place, { id, seq: asOf }: HistoryRow): string {
  return writeCursor([FORMAT, id, asOf, seq, number, told]);
}

function cursorAtEnd(head: HistoryRow): string {
  return textOf({ seq: head.seq + 1, number: 0, told: null }, head);
}

function cursorIn(text: string): Cursor {
  const [format, history, asOf, seq, number, told] = readCursor(text) ?? [];
  if (
    format === FORMAT &&
    typeof history === "string" &&
    typeof asOf === "number" &&
    typeof seq === "number" &&
    typeof number === "number" &&
    seq > 0 &&
    seq <= asOf + 1
  ) {
    return { history, asOf, place: { seq, number, told: isTold(told) ? told : null } };
  }
  throw invalid("$.payload.after", "not a cursor; use one from an earlier reply, `now`, or none for what is kept");
}

function isTold(value: unknown): value is Told {
  return (
    Array.isArray(value) && typeof value[0] === "number" && typeof value[1] === "number" && typeof value[2] === "string"
  );
}

/** Whether a cursor is of this history, and of a time of which all changes are kept. */
function isOf(head: HistoryRow, { history, asOf, place }: Cursor): boolean {
  return history === head.id && asOf <= head.seq && place.seq >= head.from;
}

// Which changes

/** The changes from a place on that the filter lets through, about as many as the limit says; of one item the last. */
async function walk(place: Place, query: Query, head: HistoryRow, work: Reads): Promise<Walk> {
  const last = new Map<string, Found>();
  let lookedAt = 0;
  let seq = place.seq - 1;
  const end = Math.min(head.seq, seq + COMMANDS_MAX);
  while (seq < end) {
    const range = IDBKeyRange.bound(seq + 1, Math.min(end, seq + COMMANDS_AT_ONCE));
    for (const command of await work.tx.objectStore("commands").getAll(range)) {
      seq = command.seq;
      for (const [number, change] of command.changes.entries()) {
        if (seq === place.seq && number < place.number) continue;
        const here = seq === place.seq && number === place.number ? place : { seq, number, told: null };
        lookedAt += 1;
        if (lookedAt > CHANGES_MAX) return { found: [...last.values()], end: here };
        if (!isWanted(change, query)) continue;
        const isList = query.values && change.kind === "replaced";
        if (last.size > 0 && (isList || last.size >= query.limit)) return { found: [...last.values()], end: here };
        const key = JSON.stringify([change.noun, change.roomId, change.channelId, change.id]);
        const found = { place: here, command, change };
        last.delete(key);
        last.set(key, found);
        if (isList) return { found: [found], end: here };
      }
    }
    seq = Math.max(seq, range.upper as number);
  }
  return { found: [...last.values()], end: { seq: seq + 1, number: 0, told: null } };
}

function isWanted({ noun, roomId }: Change, { nouns, rooms }: Query): boolean {
  if (nouns && !nouns.some((each) => each === noun)) return false;
  return !rooms || (NOUNS_IN_ROOMS.has(noun) && (roomId === undefined || rooms.includes(roomId)));
}

/** What to tell of a list that replaced another: that this is gone, and then the items of the list as it is now. */
async function listOf(found: Found, limit: number, work: Reads): Promise<Walk> {
  const { place, change } = found;
  const roomId = change.roomId ?? "";
  const listed: Found[] = place.told === null ? [{ ...found, change: { ...change, kind: "cleared" } }] : [];
  let { told } = place;
  const members = await membersAfter(roomId, told, limit, work);
  for (const each of members) {
    listed.push({
      ...found,
      place: { ...place, told },
      change: { noun: change.noun, kind: "saved", id: each[2], roomId },
    });
    told = each;
  }
  const isDone = members.length < limit;
  return { found: listed, end: isDone ? { seq: place.seq, number: place.number + 1, told: null } : { ...place, told } };
}

/** The members of a room after one; only lists of members are replaced as a whole. */
async function membersAfter(roomId: string, told: Told | null, limit: number, { tx }: Reads): Promise<Told[]> {
  const room = bytes(roomId);
  const range = told === null ? startingWith(room) : after([room], [told[0], bytes(told[2])]);
  const rows = await tx.objectStore("members").index("order").getAll(range, limit);
  return rows.map(({ joined, member }) => [joined, 0, member.oderId]);
}

// With values

/** What to tell of changes, as much as fits into a page, and the place after it. */
async function tell(
  { found, end }: Walk,
  values: boolean,
  work: Reads,
): Promise<{ changes: ItemChange[]; end: Place }> {
  if (!values) return { changes: found.map((each) => itemChange(each.command, each.change)), end };
  const changes: ItemChange[] = [];
  let size = 0;
  for (const each of found) {
    const told = await withValue(each, work);
    const ownSize = jsonBytes(told);
    const isTooLarge = ownSize > ITEM_BYTES_MAX; // it has to be read in parts
    size += isTooLarge ? 0 : ownSize;
    if (size > LIMITS.pageBytes && changes.length > 0) return { changes, end: each.place };
    changes.push(isTooLarge ? itemChange(each.command, each.change) : told);
  }
  return { changes, end };
}

async function withValue({ command, change }: Found, work: Reads): Promise<ItemChange> {
  if (change.kind !== "saved") return itemChange(command, change);
  if (change.noun === "current-user") {
    const id = await currentUserId(work);
    return itemChange(command, { noun: "current-user", kind: "saved", ...(id !== null && { id }) });
  }
  const value = await valueOf(change, work);
  if (value === undefined) return itemChange(command, change);
  const told = itemChange(command, change, value === null);
  return value === null ? told : ({ ...told, value } as ItemChange);
}

/** The item as it is now: null if it is gone, undefined if it is too large. */
async function valueOf({ noun, id = "", roomId = "" }: Change, work: Reads): Promise<object | null | undefined> {
  switch (noun) {
    case "message":
      return messageIn(roomId, id, work);
    case "room":
      return roomOrTooLarge(id, work);
    case "member":
      return findMember(roomId, id, work);
    case "user":
      return findByOderId(id, work);
    default:
      return findBan(roomId, id, work);
  }
}

async function roomOrTooLarge(id: string, work: Reads): Promise<object | null | undefined> {
  try {
    return await roomWithoutMembers(id, work);
  } catch (error) {
    if (error instanceof TooLargeError) return undefined;
    throw error;
  }
}

async function messageIn(roomId: string, id: string, work: Reads): Promise<object | null | undefined> {
  const { row } = await find(id, work);
  if (row?.message.roomId !== roomId) return null;
  return (await withLists([row], true, true, work))?.[0];
}
