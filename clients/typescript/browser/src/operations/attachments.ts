/** Attachments of messages. */

import type { Attachment, AttachmentPosition } from "backscroll/language";
import { after, bytes, startingWith } from "../keys.js";
import type { Reads, Writes } from "../layout.js";
import { type ListQuery, page } from "./lists.js";
import { NO_ROOM, declareMessage, find } from "./rows.js";
import { checkSize } from "./updates.js";

export async function saveAttachment({ attachment }: { attachment: Attachment }, work: Writes): Promise<null> {
  const found = await find(attachment.messageId, work);
  if (found.isDeleted) return null;
  checkSize(attachment, `attachment ${JSON.stringify(attachment.id)}`);
  const store = work.tx.objectStore("attachments");
  const before = await store.index("id").get(bytes(attachment.id));
  if (before !== undefined && JSON.stringify(before.attachment) === JSON.stringify(attachment)) return null;
  if (before !== undefined) await store.delete([before.room, before.message, before.id]);
  const room = found.row?.room ?? NO_ROOM;
  await store.put({ room, message: found.key, id: bytes(attachment.id), attachment });
  if (before !== undefined && before.attachment.messageId !== attachment.messageId) {
    declareMessage(await find(before.attachment.messageId, work), work);
  }
  declareMessage(found, work);
  return null;
}

export async function deleteAttachmentsForMessage({ messageId }: { messageId: string }, work: Writes): Promise<null> {
  const found = await find(messageId, work);
  const range = startingWith(found.row?.room ?? NO_ROOM, found.key);
  const store = work.tx.objectStore("attachments");
  if ((await store.getKey(range)) === undefined) return null;
  await store.delete(range);
  declareMessage(found, work);
  return null;
}

export async function getAttachmentsForMessage(
  query: ListQuery<AttachmentPosition> & { messageId: string },
  work: Reads,
): Promise<Attachment[]> {
  const { row, key } = await find(query.messageId, work);
  const parts = [row?.room ?? NO_ROOM, key];
  const range = query.after === undefined ? startingWith(...parts) : after(parts, [bytes(query.after.id)]);
  const rows = await work.tx.objectStore("attachments").getAll(range, query.limit);
  return page(
    rows.map((each) => each.attachment),
    query,
  );
}

export async function getAllAttachments(query: ListQuery<AttachmentPosition>, { tx }: Reads): Promise<Attachment[]> {
  const range = query.after === undefined ? null : IDBKeyRange.lowerBound(bytes(query.after.id), true);
  const rows = await tx.objectStore("attachments").index("id").getAll(range, query.limit);
  return page(
    rows.map((each) => each.attachment),
    query,
  );
}
