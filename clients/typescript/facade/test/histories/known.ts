/** Fixed histories: the smallest ones on which two stores differed once, and cases that are rarely drawn. */

import type { Step } from "./steps.js";

/** A history by the rule that it shows. */
export interface KnownHistory {
  rule: string;
  steps: readonly Step[];
}

const message = (id: string, fields: object = {}): Step => ({
  type: "save-message",
  payload: { message: { id, roomId: "r", content: id, timestamp: 1_000, ...fields } },
});
const text = (bytes: number, unit = "x"): string => unit.repeat(bytes / new TextEncoder().encode(unit).length);

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
];
