/** Messages. Their reactions and attachments have object stores of their own. */

import type { GetMessageById, GetMessages, Message, MessageUpdates, Reaction } from "backscroll/language";
import { LIMITS } from "backscroll/language";
import { cleared, gone, saved } from "../changes.js";
import { conflict, notFound, resultTooLarge } from "../errors.js";
import { bytes, startingWith } from "../keys.js";
import type { MessageRow, Reads, Writes } from "../layout.js";
import { fitsReply, withLists } from "./lists.js";
import { checkReactions, replaceReactions } from "./reactions.js";
import { NO_ROOM, deleteChildren, find, keyOf, moveChildren, rowOf, tombstoneOf } from "./rows.js";
import { checkSize, updated } from "./updates.js";

export async function saveMessage({ message }: { message: Message }, work: Writes): Promise<null> {
  checkReactions(message.id, message.reactions, "$.payload.message.reactions");
  checkSize(withoutLists(message), `message ${JSON.stringify(message.id)}`);
  const found = await find(message.id, work);
  if (found.isDeleted) return null; // also of another room: late copies are no mistake
  if (found.row !== undefined && found.row.message.roomId !== message.roomId) {
    throw isElsewhere(message.id, found.row.message.roomId);
  }
  await write(message, message.reactions, found.row, work);
  return null;
}

export async function updateMessage(
  { messageId, updates }: { messageId: string; updates: MessageUpdates & { reactions?: Reaction[] } },
  work: Writes,
): Promise<null> {
  const { row, isDeleted } = await find(messageId, work);
  if (isDeleted) throw conflict("$.payload.messageId", `message ${JSON.stringify(messageId)} was deleted`);
  if (row === undefined) throw isNotStored(messageId);
  const { reactions, ...fields } = updates;
  checkReactions(messageId, reactions, "$.payload.updates.reactions");
  const message = updated(row.message, fields);
  checkSize(message, `message ${JSON.stringify(messageId)}`);
  if (message.roomId !== row.message.roomId) gone(work, "message", messageId, row.message.roomId);
  await write(message, reactions, row, work);
  return null;
}

export async function deleteMessage({ messageId }: { messageId: string }, work: Writes): Promise<null> {
  const { row, isDeleted } = await find(messageId, work);
  if (row === undefined && !isDeleted) throw isNotStored(messageId);
  if (row === undefined || isDeleted) return null;
  saved(work, "message", messageId, row.message.roomId);
  await makeTombstone(row, work);
  return null;
}

export async function clearRoomMessages({ roomId }: { roomId: string }, work: Writes): Promise<null> {
  const range = startingWith(bytes(roomId));
  const messages = work.tx.objectStore("messages");
  if ((await messages.getKey(range)) === undefined) return null;
  cleared(work, "message", roomId);
  await Promise.all([
    messages.delete(range),
    work.tx.objectStore("reactions").delete(range),
    work.tx.objectStore("attachments").delete(range),
  ]);
  return null;
}

export async function getMessages(
  { roomId, limit, offset, childLists }: Required<GetMessages>,
  work: Reads,
): Promise<Message[]> {
  const rows = await rowsFrom(roomId, offset, limit, work);
  const messages = fitsReply(rows) ? await withLists(rows, childLists, false, work) : null;
  if (messages !== null) return messages; // a shorter list would look like the end of the room
  const problem = `the messages do not fit into a reply of ${String(LIMITS.replyBytes)} bytes`;
  throw resultTooLarge(`${problem}: ask with a smaller \`limit\``);
}

export async function getMessageById(
  { messageId, childLists, attachments }: Required<GetMessageById>,
  work: Reads,
): Promise<Message | null> {
  const { row } = await find(messageId, work);
  if (row === undefined) return null;
  const messages = await withLists([row], childLists, attachments, work);
  if (messages === null) throw tooManyChildren(messageId);
  return messages[0] ?? null;
}

/** The error for a message whose reactions and attachments alone are too many for a reply. */
export function tooManyChildren(messageId: string): Error {
  const instead =
    "ask with `childLists: false` and without `attachments`, and for them with get-reactions-for-message or " +
    "get-attachments-for-message and `limit`";
  return resultTooLarge(
    `message ${JSON.stringify(messageId)} has too many reactions or attachments for a reply: ${instead}`,
  );
}

/** Delete the text of a message and what belongs to it; its row stays, and that it was deleted is known for ever. */
export async function makeTombstone(row: MessageRow, work: Writes): Promise<void> {
  const { tx } = work;
  await deleteChildren(row.room, row.id, work);
  await tx.objectStore("messages").put(rowOf(tombstoneOf(row.message)));
  await tx.objectStore("tombstones").put({ id: row.id });
}

/** Write a whole message, in place of what is stored of it; without `reactions` the stored ones stay. */
async function write(
  message: Message,
  reactions: Reaction[] | undefined,
  before: MessageRow | undefined,
  work: Writes,
): Promise<void> {
  const messages = work.tx.objectStore("messages");
  const row = rowOf(message);
  if (before !== undefined) await messages.delete(keyOf(before));
  await moveChildren(before?.room ?? NO_ROOM, row.room, row.id, work);
  saved(work, "message", message.id, message.roomId);
  if (message.isDeleted) {
    await makeTombstone(row, work);
    return;
  }
  await messages.put(row);
  if (row.expires !== undefined) work.due = Math.min(work.due ?? Infinity, row.expires);
  if (reactions !== undefined) await replaceReactions(row, reactions, work);
}

async function rowsFrom(roomId: string, offset: number, limit: number, { tx }: Reads): Promise<MessageRow[]> {
  const range = startingWith(bytes(roomId));
  const messages = tx.objectStore("messages");
  if (offset === 0) return messages.getAll(range, limit);
  let cursor = await messages.openKeyCursor(range);
  cursor = cursor === null ? null : await cursor.advance(Math.min(offset, 2 ** 32 - 1));
  if (cursor === null) return [];
  return messages.getAll(IDBKeyRange.bound(cursor.key, [bytes(roomId), []]), limit);
}

function withoutLists(message: Message): Message {
  return { ...message, reactions: [] };
}

function isNotStored(messageId: string): Error {
  return notFound("$.payload.messageId", `there is no message ${JSON.stringify(messageId)}`);
}

function isElsewhere(messageId: string, roomId: string): Error {
  const where = `message ${JSON.stringify(messageId)} is in room ${JSON.stringify(roomId)}`;
  const instead = "update its roomId to move it, or give another id";
  return conflict("$.payload.message.id", `${where}; ${instead}`, { roomId });
}
