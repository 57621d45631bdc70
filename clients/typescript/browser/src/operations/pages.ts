/**
 * Pages of messages by cursor.
 *
 * A cursor is a position in the order (timestamp, ordinal, id) of a room or of a part of it, not a row. So it stays valid
 * when messages are saved, edited or deleted, even the one it was made from.
 */

import type { GetMessagePage, Message, MessagePage } from "backscroll/language";
import { LIMITS } from "backscroll/language";
import { readCursor, writeCursor } from "../cursors.js";
import { invalid, notFound } from "../errors.js";
import { type Part, bytes } from "../keys.js";
import type { MessageRow, Reads } from "../layout.js";
import type { Checked } from "../validate.js";
import { longChars, withLists } from "./lists.js";
import { tooManyChildren } from "./messages.js";
import { find } from "./rows.js";
import { pageOf, sizeInPage } from "./sizes.js";

type Query = Checked<GetMessagePage> & {
  limit: number;
  includeDeleted: boolean;
  childLists: boolean;
  pinned: boolean;
  attachments: boolean;
};

interface Position {
  timestamp: number;
  ordinal: number;
  id: string;
}

/** Rows on one side of a position, nearest first, the characters in their long texts, and whether there are more. */
interface Side {
  rows: MessageRow[];
  chars: number;
  more: boolean;
}

/** The messages of a room or of a part of it, in order. */
interface Timeline {
  readonly room: string;
  readonly channel: string | null;
  readonly thread: string | null;
  readonly pinned: boolean;
  readonly includeDeleted: boolean;
}

const END: Position = { timestamp: LIMITS.integer + 1, ordinal: 0, id: "" };
const BEFORE_ALL = -LIMITS.integer - 1;
/** So many characters fit into a page, whatever they are. */
const CHARS_SURE = LIMITS.pageBytes / 6;

export async function getMessagePage(query: Query, work: Reads): Promise<MessagePage> {
  if ([query.before, query.after, query.around, query.aroundTime].filter((each) => each !== undefined).length > 1) {
    throw invalid("$.payload", "only one of before, after, around and aroundTime may be given");
  }
  const timeline = timelineOf(query);
  const { rows, near, chars, more } = await found(query, timeline, work);
  const shown = await fitting(rows, chars, Math.min(near, rows.length - 1), query, work);
  const first = shown.messages.at(0);
  const last = shown.messages.at(-1);
  return {
    messages: shown.messages,
    hasOlder: more.older || shown.start > 0,
    hasNewer: more.newer || shown.end < rows.length,
    ...(first && last && { olderCursor: cursorOf(first, timeline), newerCursor: cursorOf(last, timeline) }),
  };
}

/** Rows in order, the one that is to be in the page in any case, and whether there are more on either side. */
interface FoundRows {
  rows: MessageRow[];
  near: number;
  chars: number;
  more: { older: boolean; newer: boolean };
}

async function found(query: Query, timeline: Timeline, work: Reads): Promise<FoundRows> {
  const { limit } = query;
  if (query.around !== undefined || query.aroundTime !== undefined) return around(query, timeline, work);
  if (query.after !== undefined) {
    const position = positionIn(query.after, timeline, "$.payload.after");
    const older = await olderThan(timeline, position, 0, true, work);
    const newer = await newerThan(timeline, position, limit, false, work);
    return { rows: newer.rows, near: 0, chars: newer.chars, more: { older: older.more, newer: newer.more } };
  }
  const position = query.before === undefined ? END : positionIn(query.before, timeline, "$.payload.before");
  const older = await olderThan(timeline, position, limit, false, work);
  const newer = await newerThan(timeline, position, 0, true, work);
  const rows = older.rows.toReversed();
  return { rows, near: rows.length, chars: older.chars, more: { older: older.more, newer: newer.more } };
}

async function around(query: Query, timeline: Timeline, work: Reads): Promise<FoundRows> {
  const { limit } = query;
  const middle =
    query.around === undefined
      ? { timestamp: query.aroundTime ?? 0, ordinal: BEFORE_ALL, id: "" }
      : await positionOf(query.around, timeline, work);
  const older = await olderThan(timeline, middle, limit, false, work);
  const newer = await newerThan(timeline, middle, limit, true, work);
  const half = Math.min(older.rows.length, Math.floor(limit / 2));
  const showNewer = Math.min(newer.rows.length, limit - half);
  const showOlder = Math.min(older.rows.length, limit - showNewer);
  return {
    rows: [...older.rows.slice(0, showOlder).reverse(), ...newer.rows.slice(0, showNewer)],
    near: showOlder,
    chars: older.chars + newer.chars,
    more: { older: older.more || older.rows.length > showOlder, newer: newer.more || newer.rows.length > showNewer },
  };
}

function timelineOf(query: Query): Timeline {
  const { roomId: room, channelId, threadId, pinned } = query;
  if (threadId !== undefined && (channelId !== undefined || pinned)) {
    throw invalid("$.payload.threadId", "a page of a thread may have neither channelId nor pinned");
  }
  return {
    room,
    channel: channelId ?? null,
    thread: threadId ?? null,
    pinned,
    includeDeleted: query.includeDeleted || pinned, // deleted messages are not pinned
  };
}

/** At most `limit` rows before a position, nearest first; with `orAt` also the row at it. */
async function olderThan(
  timeline: Timeline,
  position: Position,
  limit: number,
  orAt: boolean,
  work: Reads,
): Promise<Side> {
  const prefix = prefixOf(timeline);
  const range = IDBKeyRange.bound(prefix, [...prefix, ...partsOf(position)], false, !orAt);
  return side(timeline, range, "prev", limit, work);
}

/** At most `limit` rows after a position, nearest first; with `orAt` also the row at it. */
async function newerThan(
  timeline: Timeline,
  position: Position,
  limit: number,
  orAt: boolean,
  work: Reads,
): Promise<Side> {
  const prefix = prefixOf(timeline);
  const range = IDBKeyRange.bound([...prefix, ...partsOf(position)], [...prefix, []], !orAt, false);
  return side(timeline, range, "next", limit, work);
}

/** Reads row by row, because a page ends where it is too large, and to know whether there are more needs one more. */
async function side(
  timeline: Timeline,
  range: IDBKeyRange,
  direction: IDBCursorDirection,
  limit: number,
  work: Reads,
): Promise<Side> {
  const rows: MessageRow[] = [];
  let chars = 0;
  for (let step = await begin(timeline, range, direction, work); step !== null; step = await step.continue()) {
    const row = step.value;
    if (!isIn(row, timeline)) continue;
    const own = longChars(row.message);
    if (rows.length === limit || (chars + own > LIMITS.pageBytes && rows.length > 0))
      return { rows, chars, more: true };
    rows.push(row);
    chars += own;
  }
  return { rows, chars, more: false };
}

interface Step {
  readonly value: MessageRow;
  continue(): Promise<Step | null>;
}

function begin(
  timeline: Timeline,
  range: IDBKeyRange,
  direction: IDBCursorDirection,
  { tx }: Reads,
): Promise<Step | null> {
  const messages = tx.objectStore("messages");
  const index = indexOf(timeline);
  return index === null ? messages.openCursor(range, direction) : messages.index(index).openCursor(range, direction);
}

function indexOf({ channel, thread, pinned }: Timeline): "pinned" | "thread" | "channel" | null {
  if (pinned) return "pinned";
  if (thread !== null) return "thread";
  return channel === null ? null : "channel";
}

function prefixOf(timeline: Timeline): Part[] {
  const room = bytes(timeline.room);
  if (timeline.pinned) return [room, 1];
  const part = timeline.thread ?? timeline.channel;
  return part === null ? [room] : [room, bytes(part)];
}

function partsOf({ timestamp, ordinal, id }: Position): Part[] {
  return [timestamp, ordinal, bytes(id)];
}

/** Whether a row that was found by the index is one of the timeline. */
function isIn({ message }: MessageRow, timeline: Timeline): boolean {
  if (message.isDeleted && !timeline.includeDeleted) return false;
  return !timeline.pinned || timeline.channel === null || message.channelId === timeline.channel;
}

/** The messages of as many consecutive rows as fit into one page; the row at `near` is one of them. */
async function fitting(
  rows: MessageRow[],
  chars: number,
  near: number,
  query: Query,
  work: Reads,
): Promise<{ messages: Message[]; start: number; end: number }> {
  let [start, end] = chars > CHARS_SURE ? pageOf(rows.map(sizeInPage), near) : [0, rows.length];
  for (;;) {
    const messages = await withLists(rows.slice(start, end), query.childLists, query.attachments, work);
    if (messages !== null) return { messages, start, end };
    const number = Math.floor((end - start) / 2);
    if (number === 0) throw tooManyChildren(rows[near]?.message.id ?? "");
    start = Math.min(Math.max(start, near - Math.floor(number / 2)), end - number);
    end = start + number;
  }
}

/** The position of a message in the timeline, also of a deleted one. */
async function positionOf(messageId: string, timeline: Timeline, work: Reads): Promise<Position> {
  const { row } = await find(messageId, work);
  const message = row?.message;
  if (
    message?.roomId === timeline.room &&
    (timeline.channel === null || message.channelId === timeline.channel) &&
    (timeline.thread === null || message.threadId === timeline.thread) &&
    (!timeline.pinned || message.pinnedAt !== undefined)
  ) {
    return { timestamp: message.timestamp, ordinal: message.ordinal ?? 0, id: message.id };
  }
  const index = indexOf(timeline);
  const part = index === null ? "room" : `room or ${index}`;
  throw notFound("$.payload.around", `there is no message ${JSON.stringify(messageId)} in this ${part}`);
}

function cursorOf(message: Message, { room, channel, thread, pinned }: Timeline): string {
  return writeCursor([room, channel, thread, pinned, message.timestamp, message.ordinal ?? 0, message.id]);
}

function positionIn(text: string, timeline: Timeline, path: string): Position {
  const [room, channel, thread, pinned, timestamp, ordinal, id] = readCursor(text) ?? [];
  if (typeof timestamp !== "number" || typeof ordinal !== "number" || typeof id !== "string") {
    throw invalid(path, "not a cursor; use one from an earlier page");
  }
  const isOfTimeline =
    room === timeline.room && channel === timeline.channel && thread === timeline.thread && pinned === timeline.pinned;
  if (!isOfTimeline) throw invalid(path, "the cursor belongs to another room, channel or thread");
  return { timestamp, ordinal, id };
}
