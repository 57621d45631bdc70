/** What is shown of the messages: one row each, with what it takes from the row before it. */

import type { Message, MessageInput } from "@backscroll/facade";
import type { OutgoingMessage } from "./outbox.js";

/** A message that is stored, or is to be. */
export type AnyMessage = Message | MessageInput;

export interface Row {
  message: AnyMessage;
  /** The first message of a day has the date above it. */
  startsDay: boolean;
  /** The first message of several by one person has the name and the picture. */
  startsGroup: boolean;
  state: "stored" | "sending" | "failed";
  problem: string | undefined;
}

const GROUP_MS = 5 * 60_000;
const BEGINNING_CHARS = 80;

/** The rows of messages in a row. `context` is the message before them, if any: it is only compared with. */
export function rowsOf(
  context: Message | undefined,
  messages: readonly Message[],
  outgoing: readonly OutgoingMessage[],
): Row[] {
  const stored = new Set(messages.map(({ id }) => id));
  const rows: Row[] = [];
  let before: AnyMessage | undefined = context;
  const add = (message: AnyMessage, state: Row["state"], problem?: string): void => {
    const startsDay = before === undefined || !isSameDay(before.timestamp, message.timestamp);
    const startsGroup =
      before === undefined ||
      startsDay ||
      before.senderId !== message.senderId ||
      message.timestamp - before.timestamp > GROUP_MS ||
      message.replyToId != null;
    rows.push({ message, startsDay, startsGroup, state, problem });
    before = message;
  };
  for (const message of messages) add(message, "stored");
  for (const { message, problem } of outgoing) {
    if (!stored.has(message.id)) add(message, problem === undefined ? "sending" : "failed", problem);
  }
  return rows;
}

function isSameDay(one: number, other: number): boolean {
  const [a, b] = [new Date(one), new Date(other)];
  return a.getDate() === b.getDate() && a.getMonth() === b.getMonth() && a.getFullYear() === b.getFullYear();
}

/** About how high a row is, in pixels, until it is rendered. */
export function estimatedHeight({ message, startsDay, startsGroup }: Row): number {
  const lines = message.content.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / 92)), 0);
  const hasReactions = message.reactions != null && message.reactions.length > 0;
  return 22 * lines + 4 + (startsGroup ? 30 : 0) + (startsDay ? 29 : 0) + (hasReactions ? 31 : 0);
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric" });

export const timeOf = ({ timestamp }: AnyMessage): string => clock.format(timestamp);
export const dateOf = ({ timestamp }: AnyMessage): string => date.format(timestamp);
/** The text of a message that it is called by, such as in its name for screen readers. */
export function beginningOf({ content, isDeleted }: AnyMessage): string {
  if (isDeleted === true) return "Message deleted";
  return content.length <= BEGINNING_CHARS ? content : `${content.slice(0, BEGINNING_CHARS).trimEnd()}…`;
}

export const nameOf = ({ senderName, senderId }: AnyMessage): string => senderName ?? senderId ?? "Nobody";
