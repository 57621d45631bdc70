/**
 * The versions of the database, each a step from the one before. A step that is published is never changed; `Layout`
 * describes what the last one leads to.
 */

/** What a step works with: the database, and the transaction that changes its version. */
type Step = (database: IDBDatabase, transaction: IDBTransaction) => void;

const STEPS: readonly Step[] = [
  function createStores(database) {
    const messages = database.createObjectStore("messages", { keyPath: ["room", "timestamp", "ordinal", "id"] });
    messages.createIndex("id", "id", { unique: true });
    messages.createIndex("channel", ["room", "channel", "timestamp", "ordinal", "id"]);
    messages.createIndex("thread", ["room", "thread", "timestamp", "ordinal", "id"]);
    messages.createIndex("pinned", ["room", "pinned", "timestamp", "ordinal", "id"]);
    database.createObjectStore("tombstones", { keyPath: "id" });
    const reactions = database.createObjectStore("reactions", { keyPath: ["room", "message", "oder", "emoji"] });
    reactions.createIndex("order", ["room", "message", "time", "oder", "emoji"]);
    database.createObjectStore("attachments", { keyPath: ["room", "message", "id"] }).createIndex("id", "id", {
      unique: true,
    });
    const users = database.createObjectStore("users", { keyPath: "oder" });
    users.createIndex("id", ["id", "oder"]);
    users.createIndex("pubkey", "pubkey");
    database.createObjectStore("rooms", { keyPath: "id" }).createIndex("order", ["created", "id"]);
    const members = database.createObjectStore("members", { keyPath: ["room", "oder"] });
    members.createIndex("order", ["room", "joined", "oder"]);
    const bans = database.createObjectStore("bans", { keyPath: ["room", "oder"] });
    bans.createIndex("order", ["room", "timestamp", "oder"]);
    bans.createIndex("user", ["room", "user"]);
    const meta = database.createObjectStore("meta", { keyPath: "key" });
    database.createObjectStore("commands", { keyPath: "seq" });
    meta.put({ key: "history", id: randomId(), seq: 0, from: 1 });
  },

  function addExpiry(_database, transaction) {
    const messages = transaction.objectStore("messages");
    messages.createIndex("expires", ["expires", "id"]);
    const walking: IDBRequest<IDBCursorWithValue | null> = messages.openCursor();
    walking.onsuccess = (): void => {
      const cursor = walking.result;
      if (cursor === null) return;
      const row = cursor.value as { message: { isDeleted: boolean; expiresAt?: number } };
      const { isDeleted, expiresAt } = row.message;
      if (!isDeleted && expiresAt !== undefined) cursor.update({ ...row, expires: expiresAt });
      cursor.continue();
    };
  },
];

/** The version of the database that this code reads and writes. */
export const VERSION = STEPS.length;

/** Take the steps from a version to the last one. */
export function migrate(database: IDBDatabase, transaction: IDBTransaction, from: number): void {
  for (const step of STEPS.slice(from)) step(database, transaction);
}

/** Random text. */
export function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (each) => each.toString(16).padStart(2, "0")).join("");
}
