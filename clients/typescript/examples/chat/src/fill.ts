import type { DatabaseService } from "@backscroll/facade";
import type { Account } from "./accounts.js";
import { conversation } from "./conversation.js";

/** How many are on their way at once: commands need not wait for one another, and nothing waits without a bound. */
const AT_ONCE = 500;

/** Save a room with a made-up conversation, and return its id; the same count gives the same room. */
export async function fill(
  db: DatabaseService,
  account: Account,
  count: number,
  progress: (saved: number) => void,
  signal: AbortSignal,
): Promise<string> {
  const roomId = `sample-${String(count)}`;
  await db.saveRoom({ id: roomId, name: `Weekend plans (${count.toLocaleString("en")})`, createdAt: 0 });
  let batch: Promise<void>[] = [];
  let saved = 0;
  for (const message of conversation(roomId, account, count)) {
    batch.push(db.saveMessage(message));
    if (batch.length < AT_ONCE) continue;
    await Promise.all(batch);
    signal.throwIfAborted();
    saved += batch.length;
    progress(saved);
    batch = [];
  }
  await Promise.all(batch);
  return roomId;
}
