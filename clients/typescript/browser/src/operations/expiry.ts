/** Messages whose `expiresAt` has come are deleted, as `delete-message` does. */

import { LIMITS } from "backscroll/language";
import { saved } from "../changes.js";
import type { Reads, Writes } from "../layout.js";
import { makeTombstone } from "./messages.js";

/** Whether a message has expired that is not deleted. */
export async function isDue({ tx, now }: Reads): Promise<boolean> {
  return (await tx.objectStore("messages").index("expires").getKey(until(now))) !== undefined;
}

/** When the next message expires. */
export async function nextExpiry({ tx }: Reads): Promise<number | undefined> {
  return (await tx.objectStore("messages").index("expires").get(until(LIMITS.millis)))?.expires;
}

/** Delete messages that have expired, as many as one command deletes. */
export async function deleteExpiredMessages(work: Writes): Promise<number> {
  const index = work.tx.objectStore("messages").index("expires");
  const rows = await index.getAll(until(work.now), LIMITS.deletedMessages);
  for (const row of rows) {
    saved(work, "message", row.message.id, row.message.roomId);
    await makeTombstone(row, work);
  }
  return rows.length;
}

/** The keys of the messages that expire until a time. */
function until(time: number): IDBKeyRange {
  return IDBKeyRange.upperBound([time, []]);
}
