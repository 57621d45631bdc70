/** Pages of rooms with equal times, deleted messages, channels and threads, as a daemon gives them. */

import assert from "node:assert/strict";
import type { GetMessagePage, MessageInput, MessagePage } from "backscroll/language";
import { AT, IS_LONG, daemon, opened, test } from "./support.js";

type Ask = (query: GetMessagePage) => Promise<MessagePage>;

const LETTERS = ["a", "Z", "é", "ﬀ", "😀", "\uffff", "𐀀", "z"];

test("pages are those of a daemon, in both directions", async (t) => {
  const [client, store] = await Promise.all([daemon(t), opened(t)]);
  const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
  t.diagnostic(`SEED=${String(seed)}`);
  const random = randomFrom(seed);
  const ids = Array.from({ length: IS_LONG ? 600 : 120 }, () => pick(3, random));
  for (const id of new Set(ids)) {
    const message = messageOf(id, random);
    const reactions = random() < 0.3 ? [{ messageId: id, oderId: pick(2, random), emoji: "👍" }] : undefined;
    const payload = { message: { ...message, ...(reactions && { reactions }) } };
    await Promise.all([client.saveMessage(payload), store.command({ type: "save-message", payload })]);
    if (random() < 0.2) {
      const attachment = { id: `${id}-file`, messageId: id, filename: "cat.png" };
      await Promise.all([
        client.saveAttachment({ attachment }),
        store.command({ type: "save-attachment", payload: { attachment } }),
      ]);
    }
    if (random() < 0.15) {
      const deleted = { messageId: id };
      await Promise.all([client.deleteMessage(deleted), store.command({ type: "delete-message", payload: deleted })]);
    }
  }
  const asks: Ask[] = [
    (query) => client.getMessagePage(query),
    (query) => store.query({ type: "get-message-page", payload: query }),
  ];
  for (const part of [{}, { channelId: "é" }, { threadId: "t" }, { pinned: true }, { pinned: true, channelId: "é" }]) {
    for (const includeDeleted of [true, false]) {
      for (const limit of [1, 2, 7, 50]) {
        const query: GetMessagePage = { roomId: "r1", includeDeleted, limit, attachments: limit === 7, ...part };
        await sameWalk(asks, query, "before");
        await sameWalk(asks, { ...query, aroundTime: AT + Math.floor(random() * 8) }, "after");
        await sameWalk(asks, { ...query, around: ids[Math.floor(random() * ids.length)] ?? "" }, "before");
      }
    }
  }
}, 600_000);

/** Walk from a page to the end in one direction on both; each page is compared. */
async function sameWalk(asks: readonly Ask[], first: GetMessagePage, direction: "before" | "after"): Promise<void> {
  const query = { ...first };
  delete query.around;
  delete query.aroundTime;
  let cursors: (string | undefined)[] = [];
  for (let number = 0; number < 30; number++) {
    const pages = await Promise.all(
      asks.map(async (ask, at) => {
        const cursor = cursors[at];
        try {
          return await ask(cursor === undefined ? first : { ...query, [direction]: cursor });
        } catch (error) {
          return error as Error;
        }
      }),
    );
    const [expected, actual] = pages.map(withoutCursors);
    assert.deepEqual(actual, expected, JSON.stringify([first, direction, number]));
    cursors = pages.map((each) =>
      each instanceof Error ? undefined : direction === "before" ? each.olderCursor : each.newerCursor,
    );
    if (cursors.includes(undefined)) return;
  }
}

function withoutCursors(page: MessagePage | Error): unknown {
  if (page instanceof Error) return "code" in page ? page.code : page;
  const { olderCursor: older, newerCursor: newer, ...rest } = page;
  return { ...rest, cursors: [older !== undefined, newer !== undefined] };
}

function messageOf(id: string, random: () => number): MessageInput {
  return {
    id,
    roomId: random() < 0.9 ? "r1" : "r2",
    content: id,
    timestamp: AT + Math.floor(random() * 8),
    ...(random() < 0.5 && { ordinal: Math.floor(random() * 3) - 1 }),
    ...(random() < 0.4 && { channelId: random() < 0.5 ? "é" : "z" }),
    ...(random() < 0.3 && { threadId: "t" }),
    ...(random() < 0.3 && { pinnedAt: AT }),
  };
}

function pick(length: number, random: () => number): string {
  return Array.from({ length }, () => LETTERS[Math.floor(random() * LETTERS.length)] ?? "").join("");
}

/** Numbers from 0 to 1 that depend on the seed alone (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
