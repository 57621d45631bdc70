/** Lists in their total order, and how much of them fits into a reply. */

import type { Attachment, Message, Reaction } from "backscroll/language";
import { LIMITS } from "backscroll/language";
import { resultTooLarge } from "../errors.js";
import { startingWith } from "../keys.js";
import type { MessageRow, Reads } from "../layout.js";
import { bytesOf, jsonBytes } from "../validate.js";

/** What all queries for lists have: how many items at most, and after which position. */
export interface ListQuery<Position> {
  limit?: number;
  after?: Position;
}

/** A whole list has less than a reply. */
const LIST_BYTES_MAX = LIMITS.replyBytes - 1024;
/** A character has at most so many bytes in JSON. */
const JSON_BYTES_PER_CHAR = 6;
/** What a row takes besides its long texts, at most: ids, names and numbers. */

/** As many items as fit into a reply; a whole list that does not is an error. */
export function page<Item>(items: Item[], query: ListQuery<unknown>): Item[] {
  let size = 2;
  for (const [at, item] of items.entries()) {
    size += jsonBytes(item) + 1;
    if (size <= LIST_BYTES_MAX) continue;
    if (query.limit !== undefined && at > 0) return items.slice(0, at);
    throw resultTooLarge(
      `the list does not fit into a reply of ${String(LIMITS.replyBytes)} bytes: ask with \`limit\` and \`after\``,
    );
  }
  return items;
}

/** Whether rows fit into a reply, by their long texts. */
export function fitsReply(rows: readonly MessageRow[]): boolean {
  let chars = 0;
  for (const { message } of rows) chars += longChars(message);
  if (chars * JSON_BYTES_PER_CHAR <= LIMITS.replyBytes) return true;
  return (
    chars <= LIMITS.replyBytes && rows.reduce((sum, each) => sum + jsonBytes(each.message), 0) <= LIMITS.replyBytes
  );
}

/** The number of characters in a message's long texts. */
export function longChars(message: Message): number {
  let chars = message.content.length + (message.senderName?.length ?? 0) + (message.headHash?.length ?? 0);
  for (const json of [message.linkMetadata, message.metadata, message.forwardedFrom, message.mentions]) {
    if (json !== undefined) chars += JSON.stringify(json).length;
  }
  return chars;
}

/**
 * The messages of rows as replies have them. Null if the reactions and attachments together are too many or too large
 * for one page.
 */
export async function withLists(
  rows: readonly MessageRow[],
  childLists: boolean,
  attached: boolean,
  work: Reads,
): Promise<Message[] | null> {
  const reactions = childLists ? await reactionsOf(rows, work) : undefined;
  const attachments = attached ? await attachmentsOf(rows, work) : undefined;
  if (reactions === null || attachments === null) return null;
  if (!fitTogether(reactions, attachments)) return null;
  return rows.map(({ message }, at) => ({
    ...message,
    ...(reactions !== undefined && { reactions: reactions[at] ?? [] }),
    ...(attachments !== undefined && { attachments: attachments[at] ?? [] }),
  }));
}

async function reactionsOf(rows: readonly MessageRow[], { tx }: Reads): Promise<Reaction[][] | null> {
  const index = tx.objectStore("reactions").index("order");
  const max = LIMITS.pageReactions;
  const found = await Promise.all(rows.map(({ room, id }) => index.getAll(startingWith(room, id), max + 1)));
  if (found.reduce((sum, each) => sum + each.length, 0) > max) return null;
  return found.map((each) => each.map(({ reaction }) => reaction));
}

async function attachmentsOf(rows: readonly MessageRow[], { tx }: Reads): Promise<Attachment[][] | null> {
  const store = tx.objectStore("attachments");
  const max = LIMITS.pageAttachments;
  const found = await Promise.all(rows.map(({ room, id }) => store.getAll(startingWith(room, id), max + 1)));
  if (found.reduce((sum, each) => sum + each.length, 0) > max) return null;
  return found.map((each) => each.map(({ attachment }) => attachment));
}

function fitTogether(...lists: (unknown[][] | undefined)[]): boolean {
  let size = 0;
  for (const each of lists) {
    if (each?.some((items) => items.length > 0)) size += bytesOf(JSON.stringify(each));
  }
  return size <= LIMITS.pageReactionsBytes;
}
