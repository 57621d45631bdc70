/**
 * The object stores of an account's database, and their rows.
 *
 * A row has the record as replies have it, and beside it the parts of its keys, as bytes. What belongs to a message has
 * the room of that message in its key too, or no bytes while the message is not stored. So a room is cleared by deleting
 * three ranges of keys, however many messages it has.
 */

import type {
  Attachment,
  Ban,
  Category,
  Change,
  Channel,
  Message,
  Reaction,
  Room,
  RoomMember,
  User,
} from "backscroll/language";
import type { DBSchema, IDBPDatabase, IDBPTransaction, StoreNames } from "idb";
import type { Bytes } from "./keys.js";

export interface MessageRow {
  room: Bytes;
  timestamp: number;
  ordinal: number;
  id: Bytes;
  channel?: Bytes;
  thread?: Bytes;
  /** 1 if it is pinned. */
  pinned?: 1;
  /** When it expires, unless it was deleted. */
  expires?: number;
  /** Without its reactions and attachments. */
  message: Message;
}

/** A message that was deleted, and may not be stored again, also when its room was cleared since. */
export interface TombstoneRow {
  id: Bytes;
}

export interface ReactionRow {
  room: Bytes;
  message: Bytes;
  /** No bytes for a count of users whom nobody names. */
  oder: Bytes;
  emoji: Bytes;
  /** −1 if it is unset. */
  time: number;
  reaction: Reaction;
}

export interface AttachmentRow {
  room: Bytes;
  message: Bytes;
  id: Bytes;
  attachment: Attachment;
}

export interface UserRow {
  oder: Bytes;
  id: Bytes;
  pubkey?: Bytes;
  user: User;
}

export interface RoomRow {
  id: Bytes;
  /** −1 if it is unset. */
  created: number;
  /** Without its lists. */
  room: Room;
  channels: Channel[];
  categories: Category[];
}

export interface MemberRow {
  room: Bytes;
  oder: Bytes;
  /** −1 if it is unset. */
  joined: number;
  member: RoomMember;
}

export interface BanRow {
  room: Bytes;
  oder: Bytes;
  timestamp: number;
  user?: Bytes;
  ban: Ban;
}

/** What a command changed. */
export interface CommandRow {
  seq: number;
  at: number;
  requestId: string;
  changes: Change[];
  /** When a message expires that it saved, if one does. */
  due?: number;
}

/** The history of the database, by which a cursor knows it, its last command, and the first that is kept. */
export interface HistoryRow {
  key: "history";
  id: string;
  seq: number;
  from: number;
}

export interface CurrentUserRow {
  key: "currentUser";
  id: string;
}

/** How far the rows of a legacy database were copied. */
export interface LegacyRow {
  key: "legacy";
  /** The database. */
  name: string;
  /** The object store that is copied, and the key of the last row that was; null when all are. */
  at: { store: string; after: IDBValidKey | null } | null;
  /** The numbers of rows by object store. */
  copied: Record<string, number>;
  skipped: Record<string, number>;
}

export interface Layout extends DBSchema {
  messages: {
    key: [Bytes, number, number, Bytes];
    value: MessageRow;
    indexes: {
      id: Bytes;
      channel: [Bytes, Bytes, number, number, Bytes];
      thread: [Bytes, Bytes, number, number, Bytes];
      pinned: [Bytes, number, number, number, Bytes];
      expires: [number, Bytes];
    };
  };
  tombstones: { key: Bytes; value: TombstoneRow };
  reactions: {
    key: [Bytes, Bytes, Bytes, Bytes];
    value: ReactionRow;
    indexes: { order: [Bytes, Bytes, number, Bytes, Bytes] };
  };
  attachments: { key: [Bytes, Bytes, Bytes]; value: AttachmentRow; indexes: { id: Bytes } };
  users: { key: Bytes; value: UserRow; indexes: { id: [Bytes, Bytes]; pubkey: Bytes } };
  rooms: { key: Bytes; value: RoomRow; indexes: { order: [number, Bytes] } };
  members: { key: [Bytes, Bytes]; value: MemberRow; indexes: { order: [Bytes, number, Bytes] } };
  bans: {
    key: [Bytes, Bytes];
    value: BanRow;
    indexes: { order: [Bytes, number, Bytes]; user: [Bytes, Bytes] };
  };
  meta: { key: string; value: HistoryRow | CurrentUserRow | LegacyRow };
  commands: { key: number; value: CommandRow };
}

export type StoreName = StoreNames<Layout>;
export type Database = IDBPDatabase<Layout>;
export type Transaction = IDBPTransaction<Layout, StoreName[], IDBTransactionMode>;
export type WriteTransaction = IDBPTransaction<Layout, StoreName[], "readwrite">;

/** The object stores of callers' data. */
export const CONTENT = [
  "messages",
  "tombstones",
  "reactions",
  "attachments",
  "users",
  "rooms",
  "members",
  "bans",
] as const satisfies StoreName[];
export const STORES: StoreName[] = [...CONTENT, "meta", "commands"];

/** What a query reads with. */
export interface Reads {
  readonly tx: Transaction;
  /** The time, in milliseconds since 1970. */
  readonly now: number;
}

/** What a command reads and writes with; it adds to `changes` what it changed. */
export interface Writes {
  readonly tx: WriteTransaction;
  readonly now: number;
  readonly changes: Change[];
  /** When the first of the messages expires that it saved. */
  due?: number;
}
