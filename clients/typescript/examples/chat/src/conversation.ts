/** Made-up conversations for trying long histories: the same for the same arguments, on every machine. */

import type { MessageInput, ReactionInput } from "@backscroll/facade";
import type { Account } from "./accounts.js";

const PEOPLE = [
  { id: "mira", name: "Mira Sandberg" },
  { id: "tomas", name: "Tomás Rey" },
  { id: "yuki", name: "Yuki Arai" },
  { id: "femi", name: "Femi Adeyemi" },
];
const THINGS = [
  "the train tickets",
  "the tent",
  "the garden",
  "Saturday's match",
  "the new café by the bridge",
  "the birthday cake",
  "the slides for Monday",
  "the broken bike",
  "the cabin",
  "the choir rehearsal",
  "the photos from the lake",
  "the film festival",
];
const WHEN = ["tonight", "tomorrow", "on Friday", "next week", "after work", "around noon", "before the rain starts"];
const STATEMENTS = [
  "I looked at {thing} again and I think we should decide {when}.",
  "Good news about {thing}: it is all sorted.",
  "I can take care of {thing} {when}.",
  "Just heard back about {thing}. They need an answer {when}.",
  "I was wrong about {thing}, sorry. Let me check and write again {when}.",
  "Somebody left a scarf at our place, grey with a red stripe.",
  "{Thing} turned out better than I expected.",
  "I made far too much soup, come over {when}.",
  "My phone was off, reading everything now…",
];
const QUESTIONS = [
  "Has anyone thought about {thing}?",
  "Who is free {when}?",
  "What did we say about {thing}?",
  "Shall I bring something {when}?",
  "Does anyone still have the link for {thing}?",
  "Could we move {thing} to another day?",
];
const ANSWERS = [
  "Yes!",
  "Sounds good to me.",
  "Not really, but I can do it {when}.",
  "Give me five minutes.",
  "I would rather not, honestly.",
  "Ha, exactly what I wanted to say 😄",
  "Let me ask and I will tell you {when}.",
  "👍",
  "Same here.",
  "Only if we get {thing} done first.",
  "Perfect, thank you!",
  "No idea.",
];
const LONG = [
  "So here is the plan as I understood it. We meet at the station {when}, somebody picks up the keys on the way, and we " +
    "deal with {thing} once everybody is there. If it rains we stay at mine and cook instead. Tell me if I got anything " +
    "wrong, otherwise I will write it to the others as well.",
  "Things we still need:\n– bread and something to go with it\n– a long extension lead\n– {thing}, obviously\n– someone who " +
    "remembers the songs",
  "I read a long piece about how they restored the old observatory, with all the drawings and the letters. The best part " +
    "is that for thirty years everybody believed the dome could not turn any more, and then it was only a bird's nest. " +
    "I will lend you the magazine {when}.",
];
const EMOJI = ["👍", "❤️", "😂", "🎉", "👀"];

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** When the last message was written, unless another time is given: a Sunday evening. */
const ENDS_AT = Date.UTC(2026, 9, 25, 18, 30);

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Messages of several people to a room, oldest first, with replies, reactions, edited and deleted ones. */
export function* conversation(
  roomId: string,
  self: Account,
  count: number,
  endsAt = ENDS_AT,
): Generator<MessageInput, void> {
  const random = randomNumbers(count);
  const pick = <Item>(items: readonly Item[]): Item => items[Math.floor(random() * items.length)] as Item;
  const people = [self, ...PEOPLE];
  const times = timesOf(count, endsAt);
  let sender = pick(people);
  let wasQuestion = false;
  for (let index = 0; index < count; index += 1) {
    const timestamp = times[index] ?? endsAt;
    const id = messageId(roomId, index);
    const kind = random();
    const isQuestion = kind < 0.2;
    if (random() > 0.35) sender = pick(people);
    const text = wasQuestion && kind > 0.1 ? pick(ANSWERS) : sentenceOf(kind, pick);
    wasQuestion = isQuestion;
    yield {
      id,
      roomId,
      senderId: sender.id,
      senderName: sender.name,
      content: filledIn(text, pick),
      timestamp,
      ...(random() < 0.06 && index > 10 && { replyToId: messageId(roomId, index - 1 - Math.floor(random() * 9)) }),
      ...(random() < 0.03 && { editedAt: timestamp + MINUTE_MS }),
      ...(random() < 0.01 && { isDeleted: true }),
      ...(random() < 0.1 && { reactions: reactionsTo(id, timestamp, people, pick, random) }),
    };
  }
}

const messageId = (roomId: string, index: number): string => `${roomId}-${String(index).padStart(6, "0")}`;

function sentenceOf(kind: number, pick: (items: readonly string[]) => string): string {
  if (kind < 0.2) return pick(QUESTIONS);
  if (kind < 0.24) return pick(LONG);
  return pick(kind < 0.62 ? STATEMENTS : ANSWERS);
}

function filledIn(text: string, pick: (items: readonly string[]) => string): string {
  const thing = pick(THINGS);
  return text
    .replace("{thing}", thing)
    .replace("{Thing}", thing.charAt(0).toUpperCase() + thing.slice(1))
    .replace("{when}", pick(WHEN));
}

function reactionsTo(
  messageId: string,
  timestamp: number,
  people: readonly Account[],
  pick: (items: readonly string[]) => string,
  random: () => number,
): ReactionInput[] {
  const emoji = pick(EMOJI);
  return people
    .filter(() => random() < 0.4)
    .map((person) => ({ messageId, oderId: person.id, emoji, timestamp: timestamp + MINUTE_MS }));
}

/** Times with lively minutes, pauses and nights, of which the last is `endsAt`. */
function timesOf(count: number, endsAt: number): Float64Array {
  const random = randomNumbers(2 * count + 1);
  const times = new Float64Array(count);
  let time = endsAt;
  for (let index = count - 1; index >= 0; index -= 1) {
    times[index] = time;
    const isPause = random() < 0.04;
    time -= Math.floor(isPause ? HOUR_MS * (1 + 8 * random()) : MINUTE_MS * (0.1 + 3 * random() ** 3));
  }
  return times;
}
