/** The database of a chat application, over whichever store there is. */

import {
  type Attachment,
  type AttachmentInput,
  type Ban,
  type BanInput,
  type ChangePage,
  type GetChanges,
  type GetMessagePage,
  InvalidError,
  type Message,
  type MessageInput,
  type MessagePage,
  type MessageUpdates,
  type OperationName,
  OPERATIONS,
  type Payloads,
  type Reaction,
  type ReactionInput,
  readsOf,
  type Results,
  type Room,
  type RoomInput,
  type RoomUpdates,
  type Store,
  type StoreEvent,
  type User,
  type UserInput,
  type UserUpdates,
  type WatchedName,
} from "backscroll/language";
import { NotReadyError, ScopeSwitchedError } from "./errors.js";
import { LiveQuery } from "./live.js";
import { type Readable, State } from "./readable.js";

/** The optional fields of a query's payload, but for those that a method has parameters for. */
export type Options<Name extends OperationName, Parameters extends keyof Payloads[Name]> = Omit<
  Payloads[Name],
  Parameters
>;

/** What a live query is for the service, whatever its result is. */
type AnyLiveQuery = Pick<LiveQuery<never>, "start" | "stop" | "changed" | "changedAll" | "connected">;

/**
 * The data of one account at a time, in any store: a daemon behind a bridge, or IndexedDB.
 *
 * `initialize(userId)` opens an account, and `switchScope(userId)` another one; `isReady` tells when one is open, and
 * calls are rejected with `NotReadyError` while none is. Calls take effect in their order, and are rejected with the
 * errors of the language.
 *
 * The parameters of a method are the required fields of the operation's payload, in their order; the optional fields of
 * a query are in a last parameter. Only `getMessages` takes `limit` and `offset` before that. There is no `arrival`, which
 * stores in browsers do not know.
 */
export class DatabaseService {
  readonly #store: Store;
  readonly #isReady = new State(false);
  readonly #connection = new State<"connected" | "disconnected">("connected");
  readonly #unsubscribe: () => void;
  /** The live queries that have subscribers. */
  readonly #liveQueries = new Set<AnyLiveQuery>();
  /** How to reject each call that is on its way. */
  readonly #onTheirWay = new Set<(reason: unknown) => void>();
  /** Stands for the latest switch. */
  #latest: object = {};
  #isClosed = false;
  /** Fulfilled when the switches so far have their outcome. */
  #switching: Promise<unknown> = Promise.resolve();

  /** Throws `InvalidError` if there is no store. */
  constructor(store: Store) {
    if (typeof (store as Partial<Store> | undefined)?.subscribe !== "function") {
      const problem = "DatabaseService takes a store, such as openBrowserStore() or bridgeStore(window.backscroll)";
      throw new InvalidError(problem, { code: "invalid" });
    }
    this.#store = store;
    this.#unsubscribe = store.subscribe((event) => {
      this.#handleEvent(event);
    });
  }

  /** Whether an account is open. */
  get isReady(): Readable<boolean> {
    return this.#isReady;
  }

  /** Whether the daemon answers; a store without a daemon is always connected. */
  get connection(): Readable<"connected" | "disconnected"> {
    return this.#connection;
  }

  /** Open the data of an account, which is that of nobody in particular without `userId`; the same as `switchScope`. */
  initialize(userId = "default"): Promise<void> {
    return this.switchScope(userId);
  }

  /**
   * Leave an account, and open another one. At once `isReady` is false, live queries have no value, and the calls on
   * their way are rejected with `ScopeSwitchedError`, as is a switch that is overtaken by this one. If it fails, no
   * account is open.
   */
  switchScope(userId: string): Promise<void> {
    if (this.#isClosed) return Promise.reject(new NotReadyError("the database was closed: make a new DatabaseService"));
    const latest = this.#leave();
    const checkLatest = (): void => {
      if (latest !== this.#latest) throw new ScopeSwitchedError();
    };
    const switched = this.#switching.then(async () => {
      checkLatest();
      await this.#store.switchScope(userId);
      checkLatest();
      await this.#store.command({ type: "initialize", payload: {} });
      checkLatest();
      this.#open();
    });
    this.#switching = switched.catch(() => undefined);
    return switched.then(() => undefined); // a promise of its own, so that a failure that nobody handles is reported
  }

  /** Leave the account, and listen to the store no longer. The store itself stays open. */
  close(): void {
    this.#isClosed = true;
    this.#unsubscribe();
    this.#leave();
  }

  /**
   * The result of a query, now and whenever it has changed, for those who subscribe to it; throws `InvalidError` if the
   * operation is not a query about stored items. Each call returns a live query of its own.
   */
  watch<Name extends WatchedName>(type: Name, payload: Payloads[Name]): LiveQuery<Results[Name]> {
    return new LiveQuery<Results[Name]>(
      {
        ask: () => this.#call(type, payload),
        join: (query) => {
          this.#liveQueries.add(query);
          return this.#isReady.value;
        },
        leave: (query) => {
          this.#liveQueries.delete(query);
        },
      },
      readsOf(type, payload),
    );
  }

  // Messages

  /** Save a message with its reactions, or replace the one with the same id. */
  saveMessage(message: MessageInput): Promise<void> {
    return this.#do("save-message", { message });
  }

  /** Messages of a room, oldest first: at most `limit` (100), without the first `offset` ones. */
  getMessages(
    roomId: string,
    limit?: number,
    offset?: number,
    options: Options<"get-messages", "roomId" | "limit" | "offset"> = {},
  ): Promise<Message[]> {
    const part = { ...(limit !== undefined && { limit }), ...(offset !== undefined && { offset }) };
    return this.#call("get-messages", { ...options, roomId, ...part });
  }

  /** The message with this id, or null. */
  getMessageById(messageId: string, options: Options<"get-message-by-id", "messageId"> = {}): Promise<Message | null> {
    return this.#call("get-message-by-id", { ...options, messageId });
  }

  /** Delete a message's text, reactions and attachments; it keeps its place. `not-found` if it does not exist. */
  deleteMessage(messageId: string): Promise<void> {
    return this.#do("delete-message", { messageId });
  }

  /** Change some fields of a message; null clears one. `not-found` if it does not exist, `conflict` if deleted. */
  updateMessage(messageId: string, updates: MessageUpdates): Promise<void> {
    return this.#do("update-message", { messageId, updates });
  }

  /** Remove all messages of a room with their reactions and attachments. */
  clearRoomMessages(roomId: string): Promise<void> {
    return this.#do("clear-room-messages", { roomId });
  }

  /** A page of messages of a room, channel or thread, oldest first, with cursors for the pages next to it. */
  getMessagePage(query: GetMessagePage): Promise<MessagePage> {
    return this.#call("get-message-page", query);
  }

  // Reactions

  /** Save a reaction, or replace the user's existing one with this emoji. Its message need not be stored yet. */
  saveReaction(reaction: ReactionInput): Promise<void> {
    return this.#do("save-reaction", { reaction });
  }

  /** Remove one emoji of a user from a message; with `oderId` null that of unnamed users. */
  removeReaction(messageId: string, oderId: string | null, emoji: string): Promise<void> {
    return this.#do("remove-reaction", { messageId, oderId, emoji });
  }

  /** The reactions to a message, ordered by (timestamp, oderId, emoji). */
  getReactionsForMessage(
    messageId: string,
    options: Options<"get-reactions-for-message", "messageId"> = {},
  ): Promise<Reaction[]> {
    return this.#call("get-reactions-for-message", { ...options, messageId });
  }

  // Users

  /** Save a user, or replace the one with the same `oderId`. `conflict` if another user has the same `pubkey`. */
  saveUser(user: UserInput): Promise<void> {
    return this.#do("save-user", { user });
  }

  /** The user with this `oderId`, or else this `id`, or null. */
  getUser(userId: string): Promise<User | null> {
    return this.#call("get-user", { userId });
  }

  /** The user set by `setCurrentUserId`; null if none is set, or the user is not stored. */
  getCurrentUser(): Promise<User | null> {
    return this.#call("get-current-user", {});
  }

  /** Set the current user of the application; null unsets it. The user need not be stored. */
  setCurrentUserId(userId: string | null): Promise<void> {
    return this.#do("set-current-user-id", { userId });
  }

  /** The members of a room as users, ordered by `oderId`; users that are not stored get the fields of the member. */
  getUsersByRoom(roomId: string, options: Options<"get-users-by-room", "roomId"> = {}): Promise<User[]> {
    return this.#call("get-users-by-room", { ...options, roomId });
  }

  /** Change some fields of the user with this `oderId`, or else this `id`; null clears one. */
  updateUser(userId: string, updates: UserUpdates): Promise<void> {
    return this.#do("update-user", { userId, updates });
  }

  // Rooms

  /** Save a room, or replace the one with the same id. Each list in it replaces the stored list. */
  saveRoom(room: RoomInput): Promise<void> {
    return this.#do("save-room", { room });
  }

  /** The room with this id, or null. */
  getRoom(roomId: string, options: Options<"get-room", "roomId"> = {}): Promise<Room | null> {
    return this.#call("get-room", { ...options, roomId });
  }

  /** All rooms, ordered by (createdAt, id). */
  getAllRooms(options: Payloads["get-all-rooms"] = {}): Promise<Room[]> {
    return this.#call("get-all-rooms", options);
  }

  /** Delete a room with its channels, categories, members, messages and bans. */
  deleteRoom(roomId: string): Promise<void> {
    return this.#do("delete-room", { roomId });
  }

  /** Change some fields of a room; null clears one, and each list replaces the stored list. */
  updateRoom(roomId: string, updates: RoomUpdates): Promise<void> {
    return this.#do("update-room", { roomId, updates });
  }

  // Bans

  /** Save a ban, or replace the user's existing ban from the room. */
  saveBan(ban: BanInput): Promise<void> {
    return this.#do("save-ban", { ban });
  }

  /** Remove a user's ban from a room. */
  removeBan(roomId: string, oderId: string): Promise<void> {
    return this.#do("remove-ban", { roomId, oderId });
  }

  /** The bans of a room that are in force, ordered by (timestamp, oderId). */
  getBansForRoom(roomId: string, options: Options<"get-bans-for-room", "roomId"> = {}): Promise<Ban[]> {
    return this.#call("get-bans-for-room", { ...options, roomId });
  }

  /** Whether a user is banned from a room now. `userId` is compared with the `oderId` and the `userId` of bans. */
  isUserBanned(userId: string, roomId: string): Promise<boolean> {
    return this.#call("is-user-banned", { userId, roomId });
  }

  // Attachments

  /** Save an attachment, or replace the one with the same id. Its message need not be stored yet. */
  saveAttachment(attachment: AttachmentInput): Promise<void> {
    return this.#do("save-attachment", { attachment });
  }

  /** The attachments of a message, ordered by id. */
  getAttachmentsForMessage(
    messageId: string,
    options: Options<"get-attachments-for-message", "messageId"> = {},
  ): Promise<Attachment[]> {
    return this.#call("get-attachments-for-message", { ...options, messageId });
  }

  /** All attachments of the account, ordered by id. */
  getAllAttachments(options: Payloads["get-all-attachments"] = {}): Promise<Attachment[]> {
    return this.#call("get-all-attachments", options);
  }

  /** Remove all attachments of a message. */
  deleteAttachmentsForMessage(messageId: string): Promise<void> {
    return this.#do("delete-attachments-for-message", { messageId });
  }

  // All

  /** Remove all data of the account, including the current user. */
  clearAllData(): Promise<void> {
    return this.#do("clear-all-data", {});
  }

  /** What changed after a cursor, in order, with what is stored now. */
  getChanges(query: GetChanges = {}): Promise<ChangePage> {
    return this.#call("get-changes", query);
  }

  #do<Name extends OperationName>(type: Name, payload: Payloads[Name]): Promise<void> {
    return this.#call(type, payload).then(() => undefined);
  }

  /** The outcome of a request, unless the account is switched before it is there. */
  #call<Name extends OperationName>(type: Name, payload: Payloads[Name]): Promise<Results[Name]> {
    if (!this.#isReady.value) return Promise.reject(new NotReadyError());
    const request = { type, payload };
    const isQuery = OPERATIONS[type].kind === "query";
    const reply = isQuery ? this.#store.query<Name>(request) : this.#store.command<Name>(request);
    return new Promise((resolve, reject) => {
      this.#onTheirWay.add(reject);
      reply.then(
        (result) => {
          this.#onTheirWay.delete(reject);
          resolve(result);
        },
        (error: unknown) => {
          this.#onTheirWay.delete(reject);
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- it is the store's
          reject(error);
        },
      );
    });
  }

  /** Have no account open: first nothing of it is left, and then everybody is told. Returns what stands for that. */
  #leave(): object {
    const tellings = [this.#isReady.assign(false)];
    for (const query of this.#liveQueries) tellings.push(...query.stop());
    const rejections = [...this.#onTheirWay];
    this.#onTheirWay.clear();
    const latest = (this.#latest = {});
    for (const reject of rejections) reject(new ScopeSwitchedError());
    for (const tell of tellings) tell();
    return latest;
  }

  #open(): void {
    const tellings = [this.#connection.assign("connected"), this.#isReady.assign(true)]; // the store answered just now
    for (const query of [...this.#liveQueries]) query.start();
    for (const tell of tellings) tell();
  }

  #handleEvent(event: StoreEvent): void {
    if (event.type === "connected" || event.type === "disconnected") this.#connection.set(event.type);
    for (const query of [...this.#liveQueries]) {
      if (event.type === "changed") query.changed(event.changes);
      else if (event.type === "gap") query.changedAll();
      else if (event.type === "connected") query.connected();
    }
  }
}
