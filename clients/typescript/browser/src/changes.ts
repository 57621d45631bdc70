/** What a command changed, as it is declared by the operation. */

import type { Change } from "backscroll/language";
import type { Writes } from "./layout.js";

type Noun = Change["noun"];

/** An item was written and can be read; a current user without an id is none. */
export function saved({ changes }: Writes, noun: Noun, id: string | null, roomId?: string): void {
  changes.push({ noun, kind: "saved", ...(id !== null && { id }), ...inRoom(roomId) });
}

/** An item no longer exists, at least not in this room. */
export function gone({ changes }: Writes, noun: Noun, id: string, roomId: string): void {
  changes.push({ noun, kind: "gone", id, roomId });
}

/** All items of a noun are gone: in a room, or everywhere. */
export function cleared({ changes }: Writes, noun: Noun, roomId?: string): void {
  changes.push({ noun, kind: "cleared", ...inRoom(roomId) });
}

/** All items of a noun in a room were rewritten. */
export function replaced({ changes }: Writes, noun: Noun, roomId: string): void {
  changes.push({ noun, kind: "replaced", roomId });
}

function inRoom(roomId: string | undefined): { roomId?: string } {
  return roomId === undefined ? {} : { roomId };
}
