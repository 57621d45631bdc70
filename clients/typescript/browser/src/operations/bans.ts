/** Bans of users from rooms. */

import type { Ban, BanPosition } from "backscroll/language";
import { gone, saved } from "../changes.js";
import { type Bytes, after, bytes, startingWith } from "../keys.js";
import type { BanRow, Reads, Writes } from "../layout.js";
import { type ListQuery, page } from "./lists.js";
import { checkSize } from "./updates.js";

/** So many are read at a time, because those that have expired do not count. */
const AT_ONCE = 1_000;

export async function saveBan({ ban }: { ban: Ban }, work: Writes): Promise<null> {
  checkSize(ban, `ban of ${JSON.stringify(ban.oderId)}`);
  await work.tx.objectStore("bans").put({
    room: bytes(ban.roomId),
    oder: bytes(ban.oderId),
    timestamp: ban.timestamp,
    ...(ban.userId !== undefined && { user: bytes(ban.userId) }),
    ban,
  });
  saved(work, "ban", ban.oderId, ban.roomId);
  return null;
}

export async function removeBan({ roomId, oderId }: { roomId: string; oderId: string }, work: Writes): Promise<null> {
  const bans = work.tx.objectStore("bans");
  const key: [Bytes, Bytes] = [bytes(roomId), bytes(oderId)];
  if ((await bans.getKey(key)) === undefined) return null;
  await bans.delete(key);
  gone(work, "ban", oderId, roomId);
  return null;
}

export async function getBansForRoom(
  query: ListQuery<BanPosition> & { roomId: string },
  { tx, now }: Reads,
): Promise<Ban[]> {
  const { roomId, limit = Infinity } = query;
  const room = bytes(roomId);
  const index = tx.objectStore("bans").index("order");
  const bans: Ban[] = [];
  let position = query.after;
  for (;;) {
    const range =
      position === undefined ? startingWith(room) : after([room], [position.timestamp, bytes(position.oderId)]);
    const rows = await index.getAll(range, AT_ONCE);
    bans.push(...rows.filter((each) => isActive(each, now)).map((each) => each.ban));
    position = rows.at(-1)?.ban;
    if (rows.length < AT_ONCE || bans.length >= limit) return page(bans.slice(0, limit), query);
  }
}

export async function isUserBanned(
  { userId, roomId }: { userId: string; roomId: string },
  { tx, now }: Reads,
): Promise<boolean> {
  const bans = tx.objectStore("bans");
  const key: [Bytes, Bytes] = [bytes(roomId), bytes(userId)];
  const [own, others] = await Promise.all([bans.get(key), bans.index("user").getAll(key)]);
  return [...(own === undefined ? [] : [own]), ...others].some((each) => isActive(each, now));
}

/** The ban of a user from a room, also one that has expired. */
export async function findBan(roomId: string, oderId: string, { tx }: Reads): Promise<Ban | null> {
  return (await tx.objectStore("bans").get([bytes(roomId), bytes(oderId)]))?.ban ?? null;
}

function isActive({ ban }: BanRow, now: number): boolean {
  return ban.expiresAt === undefined || ban.expiresAt > now;
}
