/**
 * Adopting the database of an application that kept all accounts in one: its rows are copied into the database of the
 * account that is its current user, once, and it is left as it is.
 *
 *     legacy object store ──▶ some rows ──▶ checked like payloads ──▶ the account's database, with how far that is
 *
 * How far the copy is stands in the account's database and is written in the transaction of the rows. So it goes on where
 * it was when the tab was closed, and two tabs that copy at once do no row twice.
 */

import { BackscrollError } from "backscroll/language";
import { OPEN_MS } from "./database.js";
import { asStoreError, unavailable } from "./errors.js";
import { bytes } from "./keys.js";
import type { Database, LegacyRow, Reads, Writes } from "./layout.js";
import { RECORDS } from "./generated/schemas.js";
import * as attachments from "./operations/attachments.js";
import * as bans from "./operations/bans.js";
import * as messages from "./operations/messages.js";
import * as reactions from "./operations/reactions.js";
import * as rooms from "./operations/rooms.js";
import { find } from "./operations/rows.js";
import * as users from "./operations/users.js";
import { type Known, checkedPayload } from "./validate.js";

/** A database of a legacy application. */
export interface LegacyOptions {
  databaseName: string;
  /** The account that a legacy `currentUserId` belongs to; that id itself by default. */
  accountOf?: ((currentUserId: string) => string) | undefined;
  /** Called after each step of the copy, and when it is done. */
  onProgress?: ((report: LegacyReport) => void) | undefined;
}

/** How far a legacy database is copied: the numbers of rows by object store. */
export interface LegacyReport {
  isDone: boolean;
  copied: Readonly<Record<string, number>>;
  /** Rows that have no valid key or value. */
  skipped: Readonly<Record<string, number>>;
}

type Fields = Record<string, unknown>;

/** Executes something as a command of the account. */
export type Execute = (handler: (work: Writes) => Promise<unknown>) => Promise<unknown>;

/** How the rows of a legacy object store are written. */
interface Copy {
  readonly store: string;
  readonly type: Known;
  /** The field of the payload, and the record in it. */
  readonly field: string;
  readonly record: string;
  readonly save: (payload: never, work: Writes) => Promise<unknown>;
  /** Whether there is a row with its key, which is newer. */
  readonly exists: (row: Fields, work: Reads) => Promise<boolean>;
}

const AT_ONCE = 200;

const COPIES: readonly Copy[] = [
  {
    store: "users",
    type: "save-user",
    field: "user",
    record: "User",
    save: users.saveUser,
    exists: async ({ oderId }, work) => (await users.findByOderId(String(oderId), work)) !== null,
  },
  {
    store: "rooms",
    type: "save-room",
    field: "room",
    record: "Room",
    save: rooms.saveRoom,
    exists: async ({ id }, { tx }) => (await tx.objectStore("rooms").getKey(bytes(String(id)))) !== undefined,
  },
  {
    store: "messages",
    type: "save-message",
    field: "message",
    record: "Message",
    save: messages.saveMessage,
    exists: async ({ id }, work) => {
      const { row, isDeleted } = await find(String(id), work);
      return row !== undefined || isDeleted;
    },
  },
  {
    store: "reactions",
    type: "save-reaction",
    field: "reaction",
    record: "Reaction",
    save: reactions.saveReaction,
    exists: () => Promise.resolve(false),
  },
  {
    store: "attachments",
    type: "save-attachment",
    field: "attachment",
    record: "Attachment",
    save: attachments.saveAttachment,
    exists: async ({ id }, { tx }) =>
      (await tx
        .objectStore("attachments")
        .index("id")
        .getKey(bytes(String(id)))) !== undefined,
  },
  {
    store: "bans",
    type: "save-ban",
    field: "ban",
    record: "Ban",
    save: bans.saveBan,
    exists: async ({ roomId, oderId }, work) => (await bans.findBan(String(roomId), String(oderId), work)) !== null,
  },
];

/** Copy a legacy database into that of its owner; does nothing if it belongs to another account, or is copied. */
export async function adoptLegacy(
  scope: string,
  { databaseName, accountOf = (id) => id, onProgress }: LegacyOptions,
  database: Database,
  execute: Execute,
): Promise<void> {
  if ((await progressOf(databaseName, database)).at === null) return;
  const legacy = await openExisting(databaseName);
  if (legacy === null) return;
  try {
    const owner = await ownerOf(legacy);
    if (owner === null || accountOf(owner) !== scope) return;
    for (;;) {
      const progress = await progressOf(databaseName, database);
      if (progress.at === null) return;
      const next = await copySome(progress, progress.at, owner, legacy, execute);
      onProgress?.({ isDone: next.at === null, copied: next.copied, skipped: next.skipped });
    }
  } catch (error) {
    throw asStoreError(error);
  } finally {
    legacy.close();
  }
}

async function progressOf(name: string, database: Database): Promise<LegacyRow> {
  const row = await database.get("meta", "legacy");
  if (row?.key === "legacy" && row.name === name) return row;
  return { key: "legacy", name, at: { store: COPIES[0]?.store ?? "", after: null }, copied: {}, skipped: {} };
}

/** Copy some rows of one object store, unless another tab did. Returns how far the copy is then. */
async function copySome(
  progress: LegacyRow,
  at: { store: string; after: IDBValidKey | null },
  owner: string,
  legacy: IDBDatabase,
  execute: Execute,
): Promise<LegacyRow> {
  const index = COPIES.findIndex((each) => each.store === at.store);
  const copy = COPIES[index];
  const { rows, last } = await rowsAfter(at.store, at.after, legacy);
  const following = COPIES[index + 1];
  const next: LegacyRow = { ...progress, copied: { ...progress.copied }, skipped: { ...progress.skipped } };
  if (rows.length === AT_ONCE && last !== null) next.at = { store: at.store, after: last };
  else next.at = following === undefined ? null : { store: following.store, after: null };
  await execute(async (work) => {
    const meta = work.tx.objectStore("meta");
    const before = await meta.get("legacy");
    const isOther = before?.key === "legacy" && before.name === progress.name && !isSamePlace(before, progress);
    if (isOther) return; // another tab was faster
    for (const row of rows) {
      const isCopied = copy !== undefined && (await copyRow(row, copy, work));
      const counts = isCopied ? next.copied : next.skipped;
      counts[at.store] = (counts[at.store] ?? 0) + 1;
    }
    if (next.at === null && (await users.currentUserId(work)) === null) {
      await users.setCurrentUserId({ userId: owner }, work);
    }
    await meta.put(next);
  });
  return next;
}

function isSamePlace({ at: one }: LegacyRow, { at: other }: LegacyRow): boolean {
  return JSON.stringify(one) === JSON.stringify(other); // the keys of legacy rows are text
}

/** Write a row, unless there is a newer one; false if it does not fit. */
async function copyRow(row: unknown, copy: Copy, work: Writes): Promise<boolean> {
  let payload: Fields;
  try {
    payload = checkedPayload(copy.type, { [copy.field]: knownFields(row, copy) });
  } catch {
    return false; // also what JSON has no form for
  }
  const record = payload[copy.field] as Fields;
  if (await copy.exists(record, work)) return true;
  try {
    await copy.save(payload as never, work);
  } catch (error) {
    if (error instanceof BackscrollError) return false; // before it wrote anything
    throw error;
  }
  return true;
}

/** The fields of a row that its record has; the legacy application may have had more. */
function knownFields(row: unknown, { record, store }: Copy): Fields {
  const fields = RECORDS[record]?.fields ?? {};
  const known = Object.entries(row ?? {}).filter(([name]) => Object.hasOwn(fields, name));
  // What JSON keeps of them: a date is its text, rather than that the whole row does not fit.
  const found = JSON.parse(JSON.stringify(Object.fromEntries<unknown>(known))) as Fields;
  if (store === "messages") delete found["reactions"]; // they have an object store of their own
  return found;
}

// The legacy database

/** Open a database without creating it. */
function openExisting(name: string): Promise<IDBDatabase | null> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(name);
    let isNew = false;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      reject(
        unavailable(`another tab upgrades or deletes the database ${JSON.stringify(name)}: close it, and try again`),
      );
    }, OPEN_MS);
    opening.onupgradeneeded = (): void => {
      isNew = true;
      opening.transaction?.abort(); // so that it is not created
    };
    opening.onsuccess = (): void => {
      clearTimeout(timer);
      opening.result.onversionchange = (): void => {
        opening.result.close();
      };
      if (isLate) opening.result.close();
      else resolve(opening.result);
    };
    opening.onerror = (): void => {
      clearTimeout(timer);
      if (isNew) resolve(null);
      else reject(opening.error ?? new Error(`the database ${name} cannot be opened`));
    };
  });
}

/** The user that a legacy database belongs to. */
async function ownerOf(legacy: IDBDatabase): Promise<string | null> {
  if (!legacy.objectStoreNames.contains("meta")) return null;
  const row: unknown = await done(legacy.transaction("meta").objectStore("meta").get("currentUserId"));
  const value = typeof row === "object" && row !== null && "value" in row ? row.value : row;
  return typeof value === "string" && value !== "" ? value : null;
}

async function rowsAfter(
  name: string,
  after: IDBValidKey | null,
  legacy: IDBDatabase,
): Promise<{ rows: unknown[]; last: IDBValidKey | null }> {
  if (!legacy.objectStoreNames.contains(name)) return { rows: [], last: null };
  const store = legacy.transaction(name).objectStore(name);
  const range = after === null ? null : IDBKeyRange.lowerBound(after, true);
  const [rows, keys] = await Promise.all([
    done<unknown[]>(store.getAll(range, AT_ONCE)),
    done(store.getAllKeys(range, AT_ONCE)),
  ]);
  return { rows, last: keys.at(-1) ?? null };
}

function done<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = (): void => {
      resolve(request.result);
    };
    request.onerror = (): void => {
      reject(request.error ?? new Error("a request of the database failed"));
    };
  });
}
