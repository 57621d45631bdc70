/** What the tests of the suite share: a database for each test, and items to save. */

import type {
  AttachmentInput,
  BanInput,
  Message,
  MessageInput,
  ReactionInput,
  RoomInput,
  UserInput,
} from "backscroll/language";
import { afterEach, expect, test as base } from "vitest";
import { DatabaseService } from "../../src/index.js";
import { backend } from "./backend.js";

/** Ids in the order of their bytes in UTF-8, which is neither that of UTF-16 nor that of a dictionary. */
export const IDS_IN_ORDER = ["B", "a", "z", "é", "中", "\u{fffd}", "😀"];
export const DELETED_TEXT = "[Message deleted]";

let accounts = 0;

/** The name of an account that nobody has used. */
export function newAccount(): string {
  accounts += 1;
  return `account ${String(accounts)} ${crypto.randomUUID()}`;
}

/** A window of the application: its database, without an account yet. */
export async function openWindow(): Promise<DatabaseService> {
  const database = new DatabaseService(await backend().openStore());
  opened.push(database);
  return database;
}

const opened: DatabaseService[] = [];

afterEach(async () => {
  for (const database of opened.splice(0)) database.close();
  await backend().closeStores();
});

/** A test with the database of a new account. */
export const test = base.extend<{ account: string; database: DatabaseService }>({
  // eslint-disable-next-line no-empty-pattern -- the runner reads from the pattern which fixtures this one needs
  account: async ({}, use) => {
    await use(newAccount());
  },
  database: async ({ account }, use) => {
    const database = await openWindow();
    await database.initialize(account);
    await use(database);
  },
});

/** Expect a call to be rejected with an error of the language, about a field of the payload. */
export async function expectRefusal(call: Promise<unknown>, code: string, path: string): Promise<void> {
  const outcome: unknown = await call.then(
    () => "fulfilled",
    (error: unknown) => error,
  );
  expect(outcome).toMatchObject({ code, details: { path } });
}

export function message(id: string, fields: Partial<MessageInput> = {}): MessageInput {
  return { id, roomId: "home", senderId: "ada", content: `text of ${id}`, timestamp: 1, ...fields };
}

/** The message as it is read, without reactions unless they are given. */
export function stored(id: string, fields: Partial<Message> = {}): Message {
  return { ...(message(id) as Message), isDeleted: false, reactions: [], ...fields };
}

export function reaction(messageId: string, fields: Partial<ReactionInput> = {}): ReactionInput {
  return { messageId, oderId: "bo", emoji: "👍", ...fields };
}

export function user(oderId: string, fields: Partial<UserInput> = {}): UserInput {
  return { oderId, id: `id-${oderId}`, username: oderId, ...fields };
}

export function room(id: string, fields: Partial<RoomInput> = {}): RoomInput {
  return { id, name: `Room ${id}`, ...fields };
}

export function ban(oderId: string, fields: Partial<BanInput> = {}): BanInput {
  return { roomId: "home", oderId, timestamp: 1, ...fields };
}

export function attachment(id: string, messageId: string, fields: Partial<AttachmentInput> = {}): AttachmentInput {
  return { id, messageId, filename: `${id}.png`, ...fields };
}

export function idsOf(items: readonly { id: string }[]): string[] {
  return items.map(({ id }) => id);
}

export function oderIdsOf(items: readonly { oderId?: string }[]): (string | undefined)[] {
  return items.map(({ oderId }) => oderId);
}

/** The order of saving must not matter. */
export function shuffled<Item>(items: readonly Item[]): Item[] {
  return [...items.filter((_, index) => index % 2 === 1), ...items.filter((_, index) => index % 2 === 0).reverse()];
}
