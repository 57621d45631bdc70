/** Fixed histories: the smallest ones on which two stores differed once, and cases that are rarely drawn. */

import type { Step } from "./steps.js";

/** A history by the rule that it shows. */
export interface KnownHistory {
  rule: string;
  /** Whether only the long form runs it. */
  isLong?: boolean;
  steps: readonly Step[];
}

const message = (id: string, fields: object = {}): Step => ({
  type: "save-message",
  payload: { message: { id, roomId: "r", content: id, timestamp: 1_000, ...fields } },
});
const attachment = (messageId: string): Step => ({
  type: "save-attachment",
  payload: { attachment: { id: "a", messageId, filename: "a.png" } },
});
const text = (bytes: number, unit = "x"): string => unit.repeat(bytes / new TextEncoder().encode(unit).length);

const reactions = (messageId: string, count: number): object[] =>
  Array.from({ length: count }, (_, index) => ({ messageId, oderId: `user ${String(index)}`, emoji: "👍" }));
const members = (count: number, username = ""): { oderId: string }[] =>
  Array.from({ length: count }, (_, index) => ({ oderId: `user ${String(index)}`, username }));
const channels = (count: number): object[] =>
  Array.from({ length: count }, (_, index) => ({ id: String(index), name: text(1_000_000), type: "text" }));

export const KNOWN: readonly KnownHistory[] = [
  {
    rule: "ids of equal time are in the order of their UTF-8 bytes",
    steps: ["😀", "\uFB01", "\uFFFD", "é", "z", "\u{10FFFF}"].map((id) => message(id)),
  },
  {
    rule: "a message that expires at once stays deleted",
    steps: [
      message("m"),
      { type: "update-message", payload: { messageId: "m", updates: { expiresAt: 1_000 } } },
      { type: "update-message", payload: { messageId: "m", updates: {} } },
      message("m"),
    ],
  },
  {
    rule: "a number that JSON does not carry is refused before anything else",
    steps: [2 ** 53, -(2 ** 60), NaN, Infinity, 1e21, 0.1, 2 ** 53 - 1].flatMap((number): Step[] => [
      message("m", { metadata: { a: [number] } }),
      { type: "update-message", payload: { messageId: "m", updates: { metadata: { a: { "": number } } } } },
      { type: "get-messages", payload: { roomId: "r", limit: number } },
    ]),
  },
  {
    rule: "an attachment that is saved again as it is, is no change",
    steps: [message("m"), attachment("m"), attachment("m"), attachment("n"), attachment("m")],
  },
  {
    rule: "a page around a message has more of what is newer",
    steps: [
      ...["a", "b", "c", "d", "e"].map((id) => message(id)),
      ...[1, 2, 3, 4].flatMap((limit): Step[] => [
        { type: "get-message-page", payload: { roomId: "r", around: "c", limit } },
        { type: "get-message-page", payload: { roomId: "r", aroundTime: 1_000, limit } },
      ]),
    ],
  },
  {
    rule: "metadata of a reaction has at most 2 KiB in JSON",
    steps: [2_039, 2_040, 2_041].map((bytes): Step => {
      const metadata = { a: text(bytes) };
      return { type: "save-reaction", payload: { reaction: { messageId: "m", oderId: "ada", emoji: "x", metadata } } };
    }),
  },
  {
    rule: "a text of a byte too many is too large",
    steps: [
      message("a", { content: text(1_048_576) }),
      message("b", { content: text(1_048_576, "é") }),
      message("c", { content: text(1_048_577) }),
      message("d", { content: `${text(1_048_576, "é")}x` }),
    ],
  },
  {
    rule: "a page ends before the message that makes it too large",
    steps: [
      ...["a", "b", "c", "d", "e", "f", "g"].map((id) => message(id, { content: text(1_048_576) })),
      { type: "get-message-page", payload: { roomId: "r" } },
      { type: "get-message-page", payload: { roomId: "r", before: { cursorOf: 1 } } },
      { type: "get-message-page", payload: { roomId: "r", around: "d" } },
      { type: "get-messages", payload: { roomId: "r", limit: 4 } },
    ],
  },
  {
    rule: "a room's whole list of messages may be too large",
    steps: [
      ...["a", "b", "c", "d", "e", "f", "g", "h", "i"].map((id) => message(id, { content: text(1_048_576) })),
      { type: "get-messages", payload: { roomId: "r" } },
      { type: "get-messages", payload: { roomId: "r", limit: 7 } },
    ],
  },
  {
    rule: "the texts of a message together may be too large",
    steps: [
      message("a", { content: "\u0001".repeat(1_048_576), senderName: text(262_080) }),
      message("b", { content: "\u0001".repeat(1_048_576), senderName: text(300_000) }),
    ],
  },
  {
    rule: "a payload that is larger than a request is too large",
    steps: [message("a", { content: "\u0001".repeat(1_000_000), senderName: "\u0001".repeat(300_000) })],
  },
  {
    rule: "a message with too many reactions is too large with them",
    isLong: true,
    steps: [
      message("a", { reactions: reactions("a", 10_001) }),
      { type: "get-message-by-id", payload: { messageId: "a" } },
      { type: "get-message-by-id", payload: { messageId: "a", childLists: false } },
      { type: "get-messages", payload: { roomId: "r" } },
      { type: "get-message-page", payload: { roomId: "r" } },
      { type: "get-message-page", payload: { roomId: "r", childLists: false } },
      { type: "get-reactions-for-message", payload: { messageId: "a" } },
      { type: "get-reactions-for-message", payload: { messageId: "a", limit: 500 } },
    ],
  },
  {
    rule: "a page ends before the message whose reactions are too many",
    isLong: true,
    steps: [
      ...["a", "b", "c", "d"].map((id) => message(id, { reactions: reactions(id, 4_000) })),
      { type: "get-message-page", payload: { roomId: "r" } },
      { type: "get-message-page", payload: { roomId: "r", before: { cursorOf: 1 } } },
      { type: "get-message-page", payload: { roomId: "r", around: "b" } },
      { type: "get-messages", payload: { roomId: "r" } },
      { type: "get-messages", payload: { roomId: "r", limit: 2 } },
    ],
  },
  {
    rule: "free JSON has at most so many values, and so many bytes",
    steps: [
      message("a", { metadata: { a: Array(49_998).fill(0) } }),
      message("b", { metadata: { a: Array(49_999).fill(0) } }),
      message("c", { metadata: { a: text(1_048_568) } }),
      message("d", { metadata: { a: text(1_048_569) } }),
      message("e", { metadata: { a: text(600_000) }, linkMetadata: { a: text(600_000) } }),
    ],
  },
  {
    rule: "a list has at most 100,000 items",
    steps: [
      message("a", { mentions: Array(100_000).fill("x") }),
      message("b", { mentions: Array(100_001).fill("x") }),
      { type: "get-message-by-id", payload: { messageId: "a" } },
    ],
  },
  {
    rule: "a list that is larger than a reply is too large, and has pages",
    steps: [
      { type: "save-room", payload: { room: { id: "r", name: "", members: members(9) } } },
      ...members(9).map(({ oderId }): Step => {
        return {
          type: "save-user",
          payload: { user: { oderId, id: oderId, username: text(1_048_576), createdAt: 1_000 } },
        };
      }),
      { type: "get-users-by-room", payload: { roomId: "r" } },
      { type: "get-users-by-room", payload: { roomId: "r", limit: 500 } },
      { type: "get-users-by-room", payload: { roomId: "r", limit: 500, after: { oderId: "user 5" } } },
    ],
  },
  {
    rule: "a room whose lists are larger than a reply is too large",
    steps: [
      { type: "save-room", payload: { room: { id: "r", name: "", channels: channels(5) } } },
      { type: "update-room", payload: { roomId: "r", updates: { members: members(5, text(1_000_000)) } } },
      { type: "get-room", payload: { roomId: "r" } },
      { type: "get-room", payload: { roomId: "r", childLists: false } },
      { type: "get-all-rooms", payload: {} },
      { type: "get-all-rooms", payload: { limit: 1 } },
      { type: "get-all-rooms", payload: { childLists: false } },
    ],
  },
  {
    rule: "long lists have all their items",
    steps: [
      { type: "save-room", payload: { room: { id: "r", name: "", members: members(1_200) } } },
      ...Array.from({ length: 600 }, (_, index) => message(`m${String(index)}`, { timestamp: 1_000 + (index % 7) })),
      { type: "get-users-by-room", payload: { roomId: "r" } },
      { type: "get-users-by-room", payload: { roomId: "r", limit: 500, after: { oderId: "user 500" } } },
      { type: "get-messages", payload: { roomId: "r", limit: 500 } },
      { type: "get-messages", payload: { roomId: "r", limit: 500, offset: 500 } },
      { type: "get-message-page", payload: { roomId: "r", limit: 500 } },
      { type: "clear-room-messages", payload: { roomId: "r" } },
      message("m1"),
      { type: "get-messages", payload: { roomId: "r" } },
    ],
  },
];
