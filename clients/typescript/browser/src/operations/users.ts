/** Users, and the current user of the application. */

import type { RoomMember, RoomUserPosition, User, UserUpdates } from "backscroll/language";
import { saved } from "../changes.js";
import { conflict, notFound } from "../errors.js";
import { after, bytes, isSame, startingWith } from "../keys.js";
import type { Reads, Writes } from "../layout.js";
import { type ListQuery, page } from "./lists.js";
import { checkSize, updated } from "./updates.js";

export async function saveUser({ user }: { user: User }, work: Writes): Promise<null> {
  return write(user, "$.payload.user.pubkey", work);
}

export async function updateUser(
  { userId, updates }: { userId: string; updates: UserUpdates },
  work: Writes,
): Promise<null> {
  const user = await findUser(userId, work);
  if (user === null) throw notFound("$.payload.userId", `there is no user ${JSON.stringify(userId)}`);
  return write(updated(user, updates), "$.payload.updates.pubkey", work);
}

export async function setCurrentUserId({ userId }: { userId: string | null }, work: Writes): Promise<null> {
  const meta = work.tx.objectStore("meta");
  if (userId === null) await meta.delete("currentUser");
  else await meta.put({ key: "currentUser", id: userId });
  saved(work, "current-user", userId);
  return null;
}

export async function getUser({ userId }: { userId: string }, work: Reads): Promise<User | null> {
  return findUser(userId, work);
}

export async function getCurrentUser(_: object, work: Reads): Promise<User | null> {
  const id = await currentUserId(work);
  return id === null ? null : findUser(id, work);
}

export async function getUsersByRoom(
  query: ListQuery<RoomUserPosition> & { roomId: string },
  { tx }: Reads,
): Promise<User[]> {
  const room = bytes(query.roomId);
  const range = query.after === undefined ? startingWith(room) : after([room], [bytes(query.after.oderId)]);
  const members = await tx.objectStore("members").getAll(range, query.limit);
  const store = tx.objectStore("users");
  const users = await Promise.all(members.map(({ oder }) => store.get(oder)));
  return page(
    members.map(({ member }, at) => users[at]?.user ?? memberAsUser(member)),
    query,
  );
}

/** The id of the application's current user, who need not be stored; null if unset. */
export async function currentUserId({ tx }: Reads): Promise<string | null> {
  const row = await tx.objectStore("meta").get("currentUser");
  return row?.key === "currentUser" ? row.id : null;
}

/** The user with this oderId. */
export async function findByOderId(oderId: string, { tx }: Reads): Promise<User | null> {
  return (await tx.objectStore("users").get(bytes(oderId)))?.user ?? null;
}

/** The user with this oderId, or else this id. */
async function findUser(userId: string, work: Reads): Promise<User | null> {
  const user = await findByOderId(userId, work);
  if (user !== null) return user;
  const row = await work.tx
    .objectStore("users")
    .index("id")
    .get(startingWith(bytes(userId)));
  return row?.user ?? null;
}

async function write(user: User, pubkeyPath: string, work: Writes): Promise<null> {
  checkSize(user, `user ${JSON.stringify(user.oderId)}`);
  const users = work.tx.objectStore("users");
  const oder = bytes(user.oderId);
  const pubkey = user.pubkey === undefined ? undefined : bytes(user.pubkey);
  const owner = pubkey === undefined ? undefined : await users.index("pubkey").get(pubkey);
  if (owner !== undefined && !isSame(owner.oder, oder)) throw conflict(pubkeyPath, "another user has this public key");
  await users.put({ oder, id: bytes(user.id), ...(pubkey !== undefined && { pubkey }), user });
  saved(work, "user", user.oderId);
  return null;
}

/** A user who is not stored, with the fields of the member. */
function memberAsUser({ oderId, id, username, displayName, avatarUrl, role, joinedAt }: RoomMember): User {
  return {
    oderId,
    id: id ?? oderId,
    username: username || oderId,
    ...(displayName !== undefined && { displayName }),
    ...(avatarUrl !== undefined && { avatarUrl }),
    ...(role !== undefined && { role }),
    ...(joinedAt !== undefined && { joinedAt }),
  };
}
