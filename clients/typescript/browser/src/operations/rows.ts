/** The rows of messages, and what belongs to them. */

import type { Message } from "backscroll/language";
import { saved } from "../changes.js";
import { type Bytes, bytes, isSame, startingWith } from "../keys.js";
import type { MessageRow, Reads, Writes } from "../layout.js";

/** The content of a deleted message. */
export const DELETED_TEXT = "[Message deleted]";
/** What a deleted message loses besides its content. */
const LOST = ["linkMetadata", "metadata", "forwardedFrom", "mentions", "pinnedAt"];
/** In place of a room, for what belongs to a message that is not stored. */
export const NO_ROOM: Bytes = bytes("");

/** What is known about the id of a message. */
export interface Found {
  readonly id: string;
  readonly key: Bytes;
  /** The message, which may be deleted. */
  readonly row: MessageRow | undefined;
  /** Whether it was deleted, also if its room was cleared since. */
  readonly isDeleted: boolean;
}

/** What is known about the id of a message. */
export async function find(id: string, { tx }: Reads): Promise<Found> {
  const key = bytes(id);
  const row = await tx.objectStore("messages").index("id").get(key);
  const isDeleted = row?.message.isDeleted ?? (await tx.objectStore("tombstones").get(key)) !== undefined;
  return { id, key, row, isDeleted };
}

/** The row of a message, and what is in its keys. */
export function rowOf(from: Message): MessageRow {
  const message = { ...from };
  delete message.reactions;
  if (message.ordinal === 0) delete message.ordinal;
  return {
    room: bytes(message.roomId),
    timestamp: message.timestamp,
    ordinal: message.ordinal ?? 0,
    id: bytes(message.id),
    ...(message.channelId !== undefined && { channel: bytes(message.channelId) }),
    ...(message.threadId !== undefined && { thread: bytes(message.threadId) }),
    ...(message.pinnedAt !== undefined && { pinned: 1 }),
    ...(message.expiresAt !== undefined && !message.isDeleted && { expires: message.expiresAt }),
    message,
  };
}

/** What a deleted message keeps: its place, its author and its times. */
export function tombstoneOf(message: Message): Message {
  const kept = { ...message, content: DELETED_TEXT, isDeleted: true };
  for (const name of LOST) Reflect.deleteProperty(kept, name);
  return kept;
}

/** The key of a row in its object store. */
export function keyOf(row: MessageRow): [Bytes, number, number, Bytes] {
  return [row.room, row.timestamp, row.ordinal, row.id];
}

/** Delete what belongs to a message in this room, or to one that is not stored. */
export async function deleteChildren(room: Bytes, message: Bytes, { tx }: Writes): Promise<void> {
  const range = startingWith(room, message);
  await Promise.all([tx.objectStore("reactions").delete(range), tx.objectStore("attachments").delete(range)]);
}

/** Give what belongs to a message the room that it is in now. */
export async function moveChildren(from: Bytes, to: Bytes, message: Bytes, work: Writes): Promise<void> {
  if (isSame(from, to)) return;
  const reactions = work.tx.objectStore("reactions");
  const attachments = work.tx.objectStore("attachments");
  const range = startingWith(from, message);
  const [someReactions, someAttachments] = await Promise.all([reactions.getAll(range), attachments.getAll(range)]);
  if (someReactions.length + someAttachments.length === 0) return;
  await deleteChildren(from, message, work);
  for (const row of someReactions) await reactions.put({ ...row, room: to });
  for (const row of someAttachments) await attachments.put({ ...row, room: to });
}

/** Declare that something belonging to a message changed; of one that is not stored nothing is told. */
export function declareMessage({ row }: Found, work: Writes): void {
  if (row !== undefined) saved(work, "message", row.message.id, row.message.roomId);
}
