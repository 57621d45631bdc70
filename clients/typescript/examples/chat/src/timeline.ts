/**
 * The messages of one room that are in memory: some pages in a row, of which those far from the view are dropped.
 *
 * What is new comes as a page after the last one. What changed among the messages in memory comes from `getChanges`,
 * with its values: it is asked whenever the store says that something changed, so nothing is read twice.
 */

import {
  BackscrollError,
  type DatabaseService,
  type Message,
  type MessagePage,
  type Readable,
  ScopeSwitchedError,
  type Store,
} from "@backscroll/facade";
import type { ItemChange, StoreEvent } from "backscroll/language";
import { untilDone } from "./retry.js";

const PAGE = 100;
const PAGES_MAX = 6;
const CHANGES = 200;

export interface TimelineState {
  /** Whether the first page was read. */
  isOpen: boolean;
  messages: readonly Message[];
  hasOlder: boolean;
  hasNewer: boolean;
  /** How many messages have come below the ones that are seen. */
  unseen: number;
}

const NOTHING: TimelineState = { isOpen: false, messages: [], hasOlder: false, hasNewer: false, unseen: 0 };

export class Timeline implements Readable<TimelineState> {
  readonly #db: DatabaseService;
  readonly #roomId: string;
  readonly #listeners = new Set<() => void>();
  readonly #unsubscribe: () => void;
  #state = NOTHING;
  #pages: MessagePage[] = [];
  #cursor: string | undefined;
  /** One step at a time, so that a page and the changes that are applied to it are never mixed up. */
  #steps: Promise<unknown> = Promise.resolve();
  #isLoading = false;
  #isPullPlanned = false;
  #isClosed = false;
  #unseenIds = new Set<string>();
  /** The message at the top of the view; undefined while the newest one is seen. The view sets it. */
  place: string | undefined;

  constructor(db: DatabaseService, store: Store, roomId: string, place?: string) {
    this.#db = db;
    this.#roomId = roomId;
    this.place = place;
    this.#unsubscribe = store.subscribe((event) => {
      if (this.#concerns(event)) this.#planPull();
    });
    void this.#step(() => this.#open());
  }

  get value(): TimelineState {
    return this.#state;
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Read nothing any more, and show nothing. */
  close(): void {
    this.#isClosed = true;
    this.#unsubscribe();
    this.#listeners.clear();
  }

  /** Read the page before those in memory; does nothing while one is being read. */
  loadOlder(): void {
    const cursor = this.#pages[0]?.olderCursor;
    if (!this.#state.hasOlder || cursor === undefined) return;
    this.#load(async () => {
      const page = await this.#read({ before: cursor });
      this.#pages.unshift(page);
      const dropped = this.#pages.splice(PAGES_MAX);
      this.#show({ hasOlder: page.hasOlder, hasNewer: this.#state.hasNewer || dropped.length > 0 });
    });
  }

  /** Read the page after those in memory; does nothing while one is being read. */
  loadNewer(): void {
    if (this.#state.hasNewer) this.#load(() => this.#readNewer());
  }

  /** Show the newest messages. */
  jumpToNewest(): Promise<void> {
    this.place = undefined;
    return this.#step(() => (this.#state.hasNewer ? this.#reopen() : Promise.resolve()));
  }

  /** Show a message and those around it. */
  jumpTo(messageId: string): Promise<void> {
    this.place = messageId;
    return this.#step(() => (this.has(messageId) ? Promise.resolve() : this.#reopen()));
  }

  has(messageId: string): boolean {
    return this.#pages.some((page) => page.messages.some(({ id }) => id === messageId));
  }

  /** The view is at the newest message. */
  seen(): void {
    this.#unseenIds.clear();
    if (this.#state.unseen > 0) this.#show({});
  }

  /** Apply what changed until now. */
  pull(): Promise<void> {
    return this.#step(() => this.#pull());
  }

  async #open(): Promise<void> {
    const cursor = await this.#now(); // first, so that what changes while the page is read is asked for afterwards
    await this.#reopen();
    this.#cursor = cursor;
  }

  async #reopen(): Promise<void> {
    const page = await this.#readAroundPlace();
    this.#pages = [page];
    this.#show({ hasOlder: page.hasOlder, hasNewer: page.hasNewer });
  }

  async #readAroundPlace(): Promise<MessagePage> {
    if (this.place === undefined) return this.#read({});
    try {
      return await this.#read({ around: this.place });
    } catch (error) {
      if (!(error instanceof BackscrollError && error.code === "not-found")) throw error;
      this.place = undefined; // the message is gone
      return this.#read({});
    }
  }

  #read(where: { before?: string; after?: string; around?: string }): Promise<MessagePage> {
    return this.#db.getMessagePage({ roomId: this.#roomId, limit: PAGE, ...where });
  }

  async #readNewer(): Promise<void> {
    const cursor = this.#pages.at(-1)?.newerCursor;
    if (cursor === undefined) {
      await this.#reopen(); // the room was empty
      return;
    }
    const page = await this.#read({ after: cursor });
    if (page.messages.length > 0) this.#pages.push(page);
    const surplus = this.#isSurplus();
    const dropped = surplus ? this.#pages.splice(0, 1) : [];
    this.#show({ hasNewer: page.hasNewer, hasOlder: this.#state.hasOlder || dropped.length > 0 });
  }

  /** Pages of single new messages count by their messages. */
  #isSurplus(): boolean {
    const count = this.#pages.reduce((sum, page) => sum + page.messages.length, 0);
    return count > PAGES_MAX * PAGE;
  }

  #load(read: () => Promise<void>): void {
    if (this.#isLoading) return;
    this.#isLoading = true;
    void this.#step(read).finally(() => {
      this.#isLoading = false;
    });
  }

  #step(act: () => Promise<void>): Promise<void> {
    const step = this.#steps
      .then(() => untilDone(() => (this.#isClosed ? Promise.resolve() : act())))
      .catch((error: unknown) => {
        const hasEnded = error instanceof BackscrollError && error.code === "unavailable"; // the page says so
        if (!(error instanceof ScopeSwitchedError) && !hasEnded) throw error;
      });
    this.#steps = step.catch(() => undefined);
    return step;
  }

  #concerns(event: StoreEvent): boolean {
    if (event.type !== "changed") return event.type !== "disconnected";
    return event.changes.some(
      (change) => change.noun === "message" && (change.roomId === undefined || change.roomId === this.#roomId),
    );
  }

  #planPull(): void {
    if (this.#isPullPlanned) return;
    this.#isPullPlanned = true;
    void this.#step(() => {
      this.#isPullPlanned = false;
      return this.#pull();
    });
  }

  async #pull(): Promise<void> {
    if (this.#cursor === undefined) {
      await this.#open();
      return;
    }
    const { changes, cursor, more, gap } = await this.#db.getChanges({
      after: this.#cursor,
      rooms: [this.#roomId],
      nouns: ["message"],
      limit: CHANGES,
    });
    const isAboutAll = changes.some(({ id }) => id === undefined);
    if (gap === true || more || isAboutAll) {
      const latest = more ? await this.#now() : cursor;
      await this.#reopen();
      this.#cursor = latest;
      return;
    }
    const newer = changes.map((change) => this.#apply(change)).filter((message) => message !== undefined);
    this.#cursor = cursor;
    if (newer.length > 0 && !this.#state.hasNewer) await this.#readNewer();
    // The cursor of the last page may be that of a message after these, which is gone.
    if (!this.#state.hasNewer) for (const message of newer) if (!this.has(message.id)) this.#insert(message);
    if (changes.length > 0) this.#show({});
  }

  async #now(): Promise<string> {
    return (await this.#db.getChanges({ after: "now" })).cursor;
  }

  /** Apply a change to the messages in memory; returns the message if it is after them. */
  #apply(change: ItemChange): Message | undefined {
    if (change.noun !== "message" || change.id === undefined) return undefined;
    const { id, value } = change;
    const before = this.#pages.flatMap((page) => page.messages).find((message) => message.id === id);
    if (before !== undefined && value !== undefined && isSamePlace(before, value)) {
      this.#replace(value);
      return undefined;
    }
    if (before !== undefined) this.#remove(id);
    if (value === undefined) return undefined;
    const last = this.#pages.at(-1)?.messages.at(-1);
    if (last === undefined || isAfter(value, last)) {
      if (before === undefined && this.place !== undefined) this.#unseenIds.add(id);
      return value;
    }
    this.#insert(value);
    return undefined;
  }

  #replace(message: Message): void {
    for (const page of this.#pages) {
      page.messages = page.messages.map((each) => (each.id === message.id ? message : each));
    }
  }

  #remove(id: string): void {
    for (const page of this.#pages) page.messages = page.messages.filter((each) => each.id !== id);
  }

  /** Insert a message that came late among those in memory; one before them comes with its page. */
  #insert(message: Message): void {
    const page = this.#pages.findLast(({ messages: [first] }) => first !== undefined && isAfter(message, first));
    if (page === undefined && this.#state.hasOlder) return;
    const into = page ?? this.#pages[0];
    if (into !== undefined) into.messages = [...into.messages, message].sort((a, b) => (isAfter(a, b) ? 1 : -1));
  }

  #show(edges: { hasOlder?: boolean; hasNewer?: boolean }): void {
    if (this.#isClosed) return;
    const messages = this.#pages.flatMap((page) => page.messages);
    this.#state = { ...this.#state, ...edges, isOpen: true, messages, unseen: this.#unseenIds.size };
    for (const listener of this.#listeners) listener();
  }
}

const isSamePlace = (one: Message, other: Message): boolean =>
  one.timestamp === other.timestamp && one.ordinal === other.ordinal && one.roomId === other.roomId;

/** The order of the messages of a room: (timestamp, ordinal, id). */
function isAfter(one: Message, other: Message): boolean {
  if (one.timestamp !== other.timestamp) return one.timestamp > other.timestamp;
  const [ordinal, otherOrdinal] = [one.ordinal ?? 0, other.ordinal ?? 0];
  return ordinal === otherOrdinal ? one.id > other.id : ordinal > otherOrdinal;
}
