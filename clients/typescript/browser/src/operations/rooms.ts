/** Rooms. Channels and categories are in the row of their room, members in an object store of their own. */

import type { Category, Channel, Room, RoomMember, RoomPosition, RoomUpdates } from "backscroll/language";
import { LIMITS } from "backscroll/language";
import { cleared, gone, replaced, saved } from "../changes.js";
import { notFound, resultTooLarge } from "../errors.js";
import { bytes, startingWith } from "../keys.js";
import type { Reads, RoomRow, Writes } from "../layout.js";
import { jsonBytes } from "../validate.js";
import { type ListQuery, page } from "./lists.js";
import { clearRoomMessages } from "./messages.js";
import { checkSize, updated } from "./updates.js";

const UNSET = -1;

/** A room with the lists that replace the stored ones. */
interface Lists {
  channels?: Channel[];
  categories?: Category[];
  members?: RoomMember[];
}

/** In updates the categories may be null, which is none. */
type Updates = Omit<RoomUpdates, keyof Lists> & Omit<Lists, "categories"> & { categories?: Category[] | null };

export async function saveRoom({ room }: { room: Room }, work: Writes): Promise<null> {
  const { channels, categories, members, ...fields } = room;
  const before = await work.tx.objectStore("rooms").get(bytes(room.id));
  return write(fields, { ...given({ channels, categories, members }) }, before, work);
}

export async function updateRoom(
  { roomId, updates }: { roomId: string; updates: Updates },
  work: Writes,
): Promise<null> {
  const before = await work.tx.objectStore("rooms").get(bytes(roomId));
  if (before === undefined) throw notFound("$.payload.roomId", `there is no room ${JSON.stringify(roomId)}`);
  const { channels, categories, members, ...fields } = updates;
  const lists = given({ channels, categories: categories === null ? [] : categories, members });
  return write(updated(before.room, fields), lists, before, work);
}

export async function deleteRoom({ roomId }: { roomId: string }, work: Writes): Promise<null> {
  const { tx } = work;
  const room = bytes(roomId);
  const range = startingWith(room);
  await clearRoomMessages({ roomId }, work);
  if ((await tx.objectStore("bans").getKey(range)) !== undefined) {
    await tx.objectStore("bans").delete(range);
    cleared(work, "ban", roomId);
  }
  if ((await tx.objectStore("rooms").getKey(room)) === undefined) return null;
  await tx.objectStore("rooms").delete(room);
  await tx.objectStore("members").delete(range);
  cleared(work, "member", roomId);
  gone(work, "room", roomId, roomId);
  return null;
}

export async function getRoom(
  { roomId, childLists }: { roomId: string; childLists: boolean },
  work: Reads,
): Promise<Room | null> {
  const row = await work.tx.objectStore("rooms").get(bytes(roomId));
  if (row === undefined) return null;
  return childLists ? withLists(row, await membersOf(row, work)) : row.room;
}

export async function getAllRooms(
  query: ListQuery<RoomPosition> & { childLists: boolean },
  work: Reads,
): Promise<Room[]> {
  const position = query.after;
  const range =
    position === undefined ? null : IDBKeyRange.lowerBound([position.createdAt ?? UNSET, bytes(position.id)], true);
  const rows = await work.tx.objectStore("rooms").index("order").getAll(range, query.limit);
  const rooms: Room[] = [];
  for (const row of rows) rooms.push(query.childLists ? withLists(row, await membersOf(row, work)) : row.room);
  return page(rooms, query);
}

/** A room with its channels and categories, but without its members. */
export async function roomWithoutMembers(roomId: string, { tx }: Reads): Promise<Room | null> {
  const row = await tx.objectStore("rooms").get(bytes(roomId));
  return row === undefined ? null : withLists(row, undefined);
}

/** The member of a room with this oderId. */
export async function findMember(roomId: string, oderId: string, { tx }: Reads): Promise<RoomMember | null> {
  return (await tx.objectStore("members").get([bytes(roomId), bytes(oderId)]))?.member ?? null;
}

async function write(room: Room, lists: Lists, before: RoomRow | undefined, work: Writes): Promise<null> {
  checkSize(room, `room ${JSON.stringify(room.id)}`);
  for (const each of lists.members ?? []) checkSize(each, `member ${JSON.stringify(each.oderId)}`);
  await work.tx.objectStore("rooms").put({
    id: bytes(room.id),
    created: room.createdAt ?? UNSET,
    room,
    channels: lists.channels === undefined ? (before?.channels ?? []) : inOrder(lists.channels),
    categories: lists.categories === undefined ? (before?.categories ?? []) : inOrder(lists.categories),
  });
  saved(work, "room", room.id, room.id);
  if (lists.members === undefined) return null;
  await replaceMembers(room.id, lists.members, work);
  replaced(work, "member", room.id);
  return null;
}

async function replaceMembers(roomId: string, members: readonly RoomMember[], { tx }: Writes): Promise<void> {
  const store = tx.objectStore("members");
  const room = bytes(roomId);
  await store.delete(startingWith(room));
  for (const member of members) {
    await store.put({ room, oder: bytes(member.oderId), joined: member.joinedAt ?? UNSET, member });
  }
}

async function membersOf({ id }: RoomRow, { tx }: Reads): Promise<RoomMember[]> {
  const rows = await tx.objectStore("members").index("order").getAll(startingWith(id));
  return rows.map((each) => each.member);
}

/** A room as replies have it; categories only if it has any. */
function withLists({ room, channels, categories }: RoomRow, members: RoomMember[] | undefined): Room {
  const lists = { channels, ...(categories.length > 0 && { categories }), ...(members !== undefined && { members }) };
  if (jsonBytes(lists) <= LIMITS.replyBytes) return { ...room, ...lists };
  const problem = `the lists of room ${JSON.stringify(room.id)} do not fit into a reply of ${String(LIMITS.replyBytes)} bytes`;
  throw resultTooLarge(`${problem}: ask with \`childLists: false\``);
}

function inOrder<Item extends { position: number; id: string }>(items: readonly Item[]): Item[] {
  return items.toSorted((one, other) => one.position - other.position || indexedDB.cmp(bytes(one.id), bytes(other.id)));
}

function given({ channels, categories, members }: { [Name in keyof Lists]: Lists[Name] | undefined }): Lists {
  return { ...(channels && { channels }), ...(categories && { categories }), ...(members && { members }) };
}
