/** Reactions, in an object store of their own. */

import type { Reaction, ReactionPosition } from "backscroll/language";
import { LIMITS } from "backscroll/language";
import { invalid, tooLarge } from "../errors.js";
import { type Bytes, after, bytes, startingWith } from "../keys.js";
import type { MessageRow, ReactionRow, Reads, Writes } from "../layout.js";
import { jsonBytes } from "../validate.js";
import { type ListQuery, page } from "./lists.js";
import { NO_ROOM, declareMessage, find } from "./rows.js";

/** What stands for an emoji that was erased from a command log. It is never stored. */
const ERASED_EMOJI = "\ufdd0";
const UNSET = -1;

export async function saveReaction({ reaction }: { reaction: Reaction }, work: Writes): Promise<null> {
  checkReaction(reaction, "$.payload.reaction");
  const found = await find(reaction.messageId, work);
  if (found.isDeleted || reaction.emoji === ERASED_EMOJI) return null;
  await work.tx.objectStore("reactions").put(rowOf(reaction, found.row?.room ?? NO_ROOM));
  declareMessage(found, work);
  return null;
}

export async function removeReaction(
  { messageId, oderId, emoji }: { messageId: string; oderId: string | null; emoji: string },
  work: Writes,
): Promise<null> {
  const found = await find(messageId, work);
  const key: [Bytes, Bytes, Bytes, Bytes] = [found.row?.room ?? NO_ROOM, found.key, bytes(oderId ?? ""), bytes(emoji)];
  const reactions = work.tx.objectStore("reactions");
  if ((await reactions.getKey(key)) === undefined) return null;
  await reactions.delete(key);
  declareMessage(found, work);
  return null;
}

export async function getReactionsForMessage(
  query: ListQuery<ReactionPosition> & { messageId: string },
  work: Reads,
): Promise<Reaction[]> {
  const { row, key } = await find(query.messageId, work);
  const parts = [row?.room ?? NO_ROOM, key];
  const position = query.after;
  const range =
    position === undefined
      ? startingWith(...parts)
      : after(parts, [position.timestamp ?? UNSET, bytes(position.oderId ?? ""), bytes(position.emoji)]);
  const rows = await work.tx.objectStore("reactions").index("order").getAll(range, query.limit);
  return page(
    rows.map((each) => each.reaction),
    query,
  );
}

/** Raise `invalid` if a reaction belongs to another message, or as `checkReaction`; `path` is that of the list. */
export function checkReactions(messageId: string, reactions: readonly Reaction[] | undefined, path: string): void {
  for (const [at, reaction] of (reactions ?? []).entries()) {
    const own = `${path}[${String(at)}]`;
    if (reaction.messageId !== messageId) {
      throw invalid(`${own}.messageId`, "must be the id of the message that contains the reaction");
    }
    checkReaction(reaction, own);
  }
}

/** Replace the stored reactions of a message by these. */
export async function replaceReactions(
  message: MessageRow,
  reactions: readonly Reaction[],
  work: Writes,
): Promise<void> {
  const store = work.tx.objectStore("reactions");
  await store.delete(startingWith(message.room, message.id));
  for (const reaction of reactions) {
    if (reaction.emoji !== ERASED_EMOJI) await store.put(rowOf(reaction, message.room));
  }
}

function checkReaction({ oderId, count, metadata }: Reaction, path: string): void {
  if ((oderId === undefined) === (count === undefined)) {
    throw invalid(`${path}.oderId`, "give the oderId of the user who reacted, or the count of users whom nobody names");
  }
  const size = metadata === undefined ? 0 : jsonBytes(metadata);
  const max = LIMITS.reactionMetadataBytes;
  if (size <= max) return;
  throw tooLarge(
    `${path}.metadata`,
    `the metadata has ${String(size)} bytes in JSON; the limit for a reaction is ${String(max)}`,
  );
}

function rowOf(reaction: Reaction, room: Bytes): ReactionRow {
  return {
    room,
    message: bytes(reaction.messageId),
    oder: bytes(reaction.oderId ?? ""),
    emoji: bytes(reaction.emoji),
    time: reaction.timestamp ?? UNSET,
    reaction,
  };
}
