/** The same calls on a daemon and on this store give the same results, orders and errors. */

import assert from "node:assert/strict";
import type { Client } from "backscroll";
import type { OperationName } from "backscroll/language";
import { AT, call, daemon, opened, outcome, test } from "./support.js";

const message = (id: string, more: object = {}): object => ({
  message: { id, roomId: "r1", senderId: "ada", content: `text of ${id}`, timestamp: AT, ...more },
});
const reaction = (messageId: string, more: object = {}): object => ({
  reaction: { messageId, oderId: "bob", emoji: "👍", ...more },
});
const attachment = (id: string, messageId: string, more: object = {}): object => ({
  attachment: { id, messageId, filename: `${id}.png`, ...more },
});

/** Ids whose order in UTF-16 is another one than in UTF-8. */
const IDS = ["z", "ﬀ", "😀", "é", "A", "ﬀ😀", "\ue000"];

const CALLS: [string, unknown][] = [
  ["get-messages", { roomId: "r1" }],
  ...IDS.map((id): [string, unknown] => ["save-message", message(id)]),
  [
    "save-message",
    message("m1", { timestamp: AT - 1, ordinal: 5, channelId: "general", metadata: { a: [1, null, 2.5] } }),
  ],
  [
    "save-message",
    message("m2", { timestamp: AT - 1, ordinal: -5, channelId: "general", threadId: "m1", pinnedAt: AT }),
  ],
  [
    "save-message",
    message("m3", { timestamp: AT - 1, channelId: "other", threadId: "m1", replyToId: "m1", ordinal: 0 }),
  ],
  [
    "save-message",
    message("m4", { senderId: null, editedAt: null, isDeleted: false, mentions: ["ada"], type: "poll" }),
  ],
  ["save-message", message("m4", { roomId: "r2" })],
  ["get-messages", { roomId: "r1" }],
  ["get-messages", { roomId: "r1", limit: 3, offset: 2, childLists: false }],
  ["get-messages", { roomId: "r1", limit: 3, offset: 200 }],
  ["get-message-by-id", { messageId: "m1" }],
  ["get-message-by-id", { messageId: "m1", childLists: false, attachments: true }],
  ["get-message-by-id", { messageId: "nobody" }],
  ["save-reaction", reaction("m1", { timestamp: AT })],
  ["save-reaction", reaction("m1", { oderId: "ada" })],
  ["save-reaction", reaction("m1", { oderId: null, count: 3, emoji: "é" })],
  ["save-reaction", reaction("m1", { count: 3 })],
  ["save-reaction", reaction("m1", { oderId: null })],
  ["save-reaction", reaction("m1", { emoji: "\ufdd0" })],
  ["save-reaction", reaction("m1", { metadata: { text: "x".repeat(2_100) } })],
  ["save-reaction", reaction("later", { timestamp: 5 })],
  ["get-reactions-for-message", { messageId: "m1" }],
  ["get-reactions-for-message", { messageId: "m1", limit: 2 }],
  ["get-reactions-for-message", { messageId: "m1", limit: 2, after: { timestamp: null, oderId: "ada", emoji: "👍" } }],
  ["get-reactions-for-message", { messageId: "later" }],
  ["save-attachment", attachment("a2", "m1", { size: 5, isImage: true })],
  ["save-attachment", attachment("a1", "m1")],
  ["save-attachment", attachment("a1", "m1")],
  ["save-attachment", attachment("a1", "m2")],
  ["save-attachment", attachment("a9", "later")],
  ["get-all-attachments", {}],
  ["get-all-attachments", { limit: 1, after: { id: "a1" } }],
  ["get-attachments-for-message", { messageId: "m1" }],
  ["get-attachments-for-message", { messageId: "later", after: { id: "a8" } }],
  ["save-message", message("later", { timestamp: AT + 5 })],
  ["get-message-by-id", { messageId: "later", attachments: true }],
  ["update-message", { messageId: "later", updates: { roomId: "r2", content: "moved", ordinal: 0 } }],
  ["get-messages", { roomId: "r2" }],
  ["get-reactions-for-message", { messageId: "later" }],
  ["get-attachments-for-message", { messageId: "later" }],
  ["update-message", { messageId: "m1", updates: { channelId: null, metadata: null, editedAt: AT } }],
  ["update-message", { messageId: "m1", updates: { content: null } }],
  ["update-message", { messageId: "m1", updates: { reactions: [{ messageId: "m1", oderId: "eve", emoji: "x" }] } }],
  ["update-message", { messageId: "m1", updates: { reactions: [{ messageId: "m2", oderId: "eve", emoji: "x" }] } }],
  ["update-message", { messageId: "nobody", updates: {} }],
  ["get-message-by-id", { messageId: "m1" }],
  ["remove-reaction", { messageId: "m1", oderId: "eve", emoji: "x" }],
  ["remove-reaction", { messageId: "m1", oderId: "eve", emoji: "x" }],
  ["remove-reaction", { messageId: "m1", oderId: null, emoji: "x", timestamp: 5 }],
  ["remove-reaction", { messageId: "m1", emoji: "x" }],
  ["get-message-page", { roomId: "r1" }],
  ["get-message-page", { roomId: "r1", limit: 3 }],
  ["get-message-page", { roomId: "r1", channelId: "general" }],
  ["get-message-page", { roomId: "r1", threadId: "m1" }],
  ["get-message-page", { roomId: "r1", threadId: "m1", pinned: true }],
  ["get-message-page", { roomId: "r1", pinned: true, attachments: true }],
  ["get-message-page", { roomId: "r1", pinned: true, channelId: "other" }],
  ["get-message-page", { roomId: "r1", around: "é", limit: 4 }],
  ["get-message-page", { roomId: "r1", around: "m1", limit: 4, channelId: "nothing" }],
  ["get-message-page", { roomId: "r1", aroundTime: AT, limit: 4, childLists: false }],
  ["get-message-page", { roomId: "r1", before: "nonsense" }],
  ["get-message-page", { roomId: "r1", before: "a", after: "b" }],
  ["get-message-page", { roomId: "none" }],
  ["delete-message", { messageId: "m1" }],
  ["delete-message", { messageId: "m1" }],
  ["delete-message", { messageId: "nobody" }],
  ["save-message", message("m1")],
  ["save-reaction", reaction("m1")],
  ["save-attachment", attachment("a7", "m1")],
  ["update-message", { messageId: "m1", updates: { content: "again" } }],
  ["get-message-by-id", { messageId: "m1", attachments: true }],
  ["get-message-page", { roomId: "r1", includeDeleted: false }],
  ["save-message", message("gone", { isDeleted: true, metadata: {}, pinnedAt: 4 })],
  ["get-message-by-id", { messageId: "gone" }],
  ["update-message", { messageId: "z", updates: { isDeleted: true } }],
  ["get-messages", { roomId: "r1" }],
  ["clear-room-messages", { roomId: "r1" }],
  ["clear-room-messages", { roomId: "r1" }],
  ["get-messages", { roomId: "r1" }],
  ["save-message", message("m1")],
  ["save-message", message("m2")],
  ["save-message", message("m1", { roomId: "r9" })],
  ["save-reaction", reaction("gone")],
  ["delete-message", { messageId: "gone" }],
  ["update-message", { messageId: "gone", updates: {} }],
  ["get-message-by-id", { messageId: "gone" }],
  ["get-reactions-for-message", { messageId: "m2" }],
  ["get-messages", { roomId: "r1" }],
  ["get-all-attachments", {}],

  ["save-user", { user: { oderId: "ada", id: "u1", username: "ada", pubkey: "k1", createdAt: AT } }],
  ["save-user", { user: { oderId: "bob", id: "u1", username: "bob", isOnline: false, metadata: {} } }],
  ["save-user", { user: { oderId: "eve", id: "u2", username: "", pubkey: "k1" } }],
  ["get-user", { userId: "u1" }],
  ["get-user", { userId: "bob" }],
  ["get-user", { userId: "x" }],
  ["get-current-user", {}],
  ["set-current-user-id", { userId: "u1" }],
  ["get-current-user", {}],
  ["set-current-user-id", { userId: null }],
  ["set-current-user-id", {}],
  ["get-current-user", {}],
  ["update-user", { userId: "u1", updates: { displayName: "Ada", pubkey: null } }],
  ["update-user", { userId: "bob", updates: { pubkey: "k1", metadata: null } }],
  ["update-user", { userId: "ada", updates: { pubkey: "k1" } }],
  ["update-user", { userId: "x", updates: {} }],
  ["update-user", { userId: "ada", updates: { oderId: "y" } }],
  ["get-user", { userId: "ada" }],
  ["get-room", { roomId: "r1" }],
  [
    "save-room",
    {
      room: {
        id: "r1",
        name: "Home",
        password: "secret",
        channels: [
          { id: "ﬀ", name: "b", type: "text", position: 1 },
          { id: "😀", name: "c", type: "text", position: 1 },
          { id: "x", name: "a", type: "voice" },
        ],
        members: [{ oderId: "bob", joinedAt: 5 }, { oderId: "zoe", username: "", role: "x" }, { oderId: "ada" }],
      },
    },
  ],
  [
    "save-room",
    { room: { id: "r2", name: "Two", createdAt: 5, categories: [{ id: "c", name: "c" }], roles: [1, {}] } },
  ],
  ["save-room", { room: { id: "r3", name: "Three", members: [{ oderId: "a" }, { oderId: "a" }] } }],
  ["get-room", { roomId: "r1" }],
  ["get-room", { roomId: "r1", childLists: false }],
  ["get-all-rooms", {}],
  ["get-all-rooms", { limit: 1, after: { createdAt: null, id: "r1" }, childLists: false }],
  ["get-users-by-room", { roomId: "r1" }],
  ["get-users-by-room", { roomId: "r1", limit: 1, after: { oderId: "ada" } }],
  ["update-room", { roomId: "r2", updates: { categories: null, topic: "t", members: [{ oderId: "ada" }] } }],
  ["update-room", { roomId: "r1", updates: { channels: null } }],
  ["update-room", { roomId: "r1", updates: { password: null } }],
  ["update-room", { roomId: "x", updates: {} }],
  ["get-all-rooms", {}],
  ["save-ban", { ban: { roomId: "r1", oderId: "eve", timestamp: 7, userId: "u9", reason: "spam" } }],
  ["save-ban", { ban: { roomId: "r1", oderId: "old", timestamp: 6, expiresAt: 8 } }],
  ["save-ban", { ban: { roomId: "r1", oderId: "new", timestamp: 7, expiresAt: AT * 2 } }],
  ["get-bans-for-room", { roomId: "r1" }],
  ["get-bans-for-room", { roomId: "r1", limit: 1, after: { timestamp: 7, oderId: "eve" } }],
  ["is-user-banned", { userId: "u9", roomId: "r1" }],
  ["is-user-banned", { userId: "eve", roomId: "r1" }],
  ["is-user-banned", { userId: "old", roomId: "r1" }],
  ["remove-ban", { roomId: "r1", oderId: "eve" }],
  ["remove-ban", { roomId: "r1", oderId: "eve" }],
  ["is-user-banned", { userId: "u9", roomId: "r1" }],
  ["delete-room", { roomId: "r1" }],
  ["delete-room", { roomId: "r1" }],
  ["get-bans-for-room", { roomId: "r1" }],
  ["get-users-by-room", { roomId: "r1" }],
  ["delete-attachments-for-message", { messageId: "later" }],
  ["delete-attachments-for-message", { messageId: "later" }],
  ["initialize", {}],

  ["save-message", { message: { id: "x", roomId: "r1" } }],
  ["save-message", message("", {})],
  ["save-message", message("x", { colour: 1 })],
  ["save-message", message("x", { timestamp: 1.5 })],
  ["save-message", message("x", { timestamp: -1 })],
  ["save-message", message("x", { timestamp: 1e15 })],
  ["save-message", message("x", { timestamp: "5" })],
  ["save-message", message("x", { content: "a\0b" })],
  ["save-message", message("x", { content: "half \ud83d" })],
  ["save-message", message("x", { metadata: { "half \ud83d": 1 } })],
  ["save-message", message("x", { metadata: { text: "half \ud83d" } })],
  ["save-message", message("x", { metadata: [] })],
  ["save-message", message("x", { metadata: { big: 1e20 } })],
  ["save-message", message("x", { metadata: { big: 1e300, small: -0, no: undefined } })],
  ["save-message", message("é".repeat(300))],
  ["save-message", message("x".repeat(513))],
  ["save-message", message("x", { mentions: [""] })],
  ["save-message", message("x", { attachments: [] })],
  ["save-message", message("x", { isDeleted: null })],
  ["save-message", message("x", { reactions: [{ messageId: "y", oderId: "a", emoji: "x" }] })],
  ["save-message", message("x", { reactions: [reaction("x", {}), 5] })],
  ["save-message", { message: 5 }],
  ["save-message", {}],
  ["save-message", null],
  ["get-messages", { roomId: "r1", limit: 0 }],
  ["get-messages", { roomId: "r1", limit: 501 }],
  ["get-messages", { roomId: "r1", limit: null }],
  ["get-messages", { roomId: "r1", offset: -1 }],
  ["get-changes", { nouns: [] }],
  ["get-changes", { nouns: ["colour"] }],
  ["get-changes", { after: "nonsense" }],
  ["get-changes", { after: "" }],
  ["get-message-by-id", { messageId: "x" }],
];

test("the same calls give what a daemon gives", async (t) => {
  const [client, store] = await Promise.all([daemon(t), opened(t)]);
  for (const [type, payload] of CALLS) {
    const name = type as OperationName;
    const expected = await outcome(() => ask(client, name, payload));
    const actual = await outcome(() => call(store, name, payload as never));
    assert.deepEqual(withoutCursors(actual), withoutCursors(expected), JSON.stringify([type, payload]));
  }
  for (const query of [{}, { values: false }, { nouns: ["member", "room"] }, { rooms: ["r1"] }, { limit: 3 }]) {
    const [expected, actual] = await Promise.all([
      feed((after) => ask(client, "get-changes", { ...query, ...after })),
      feed((after) => call(store, "get-changes", { ...query, ...after } as never)),
    ]);
    assert.deepEqual(actual, expected, JSON.stringify(query));
  }
});

interface Page {
  changes: { at: unknown; requestId: unknown }[];
  cursor: string;
  more: boolean;
}

/** All pages of the feed, without what differs: cursors, times and ids of requests. */
async function feed(ask: (after: object) => Promise<unknown>): Promise<object[]> {
  const pages: object[] = [];
  let after = {};
  for (;;) {
    const { changes, cursor, more } = (await ask(after)) as Page;
    pages.push({ changes: changes.map((each) => ({ ...each, at: 0, requestId: "" })), more });
    if (!more) return pages;
    after = { after: cursor };
  }
}

function withoutCursors(found: unknown): unknown {
  return JSON.parse(JSON.stringify(found, (name, value: unknown) => (name.endsWith("Cursor") ? "" : value)));
}

async function ask(client: Client, type: OperationName, payload: unknown): Promise<unknown> {
  return (await client.answer(type, payload as never)).result;
}
