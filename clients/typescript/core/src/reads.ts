/** Which changes tell that the result of a query may be another one now. */

import { InvalidError } from "./generated/errors.js";
import { OPERATIONS, type OperationName, type QueryName } from "./generated/operations.js";
import type { GetChanges } from "./generated/payloads.js";
import type { ItemChange } from "./generated/records.js";

const NOUNS_IN_ROOMS = new Set(["message", "room", "member", "ban"]);

/** The operations whose result `watch` follows: queries about what is stored. */
export type WatchedName = Exclude<QueryName, "get-changes">;

/** What a query reads; without `nouns` any items, without `rooms` items in any room. */
export interface Reads {
  nouns?: NonNullable<GetChanges["nouns"]>;
  rooms?: string[];
}

/** What a query reads; throws `InvalidError` if it is not a query about stored items. */
export function readsOf(type: OperationName, payload: object): Reads {
  const { kind, reads } = Object.hasOwn(OPERATIONS, type) ? OPERATIONS[type] : {};
  if (kind !== "query" || type === "get-changes") {
    throw new InvalidError(`watch takes a query about stored items, not ${type}`, { code: "invalid" });
  }
  const roomId: unknown = "roomId" in payload ? payload.roomId : undefined;
  const isInRoom = typeof roomId === "string" && reads?.every((noun) => NOUNS_IN_ROOMS.has(noun));
  return {
    ...(isInRoom && { rooms: [roomId] }),
    ...(reads && { nouns: [...reads] as NonNullable<GetChanges["nouns"]> }),
  };
}

/** Whether a change is about what a query reads. Without a room it is about all rooms. */
export function mayChange({ nouns, rooms }: Reads, { noun, roomId }: ItemChange): boolean {
  const known: readonly unknown[] | undefined = nouns;
  return (known?.includes(noun) ?? true) && (rooms === undefined || roomId === undefined || rooms.includes(roomId));
}
