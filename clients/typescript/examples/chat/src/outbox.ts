/**
 * What was written and is not saved yet. The steps are executed in order, and again until they take effect, also when
 * the daemon is away for long. That is safe because each of them may be repeated: a message has its id from the
 * beginning, so that saving it twice is saving it once.
 */

import type { DatabaseService, MessageInput, Readable } from "@backscroll/facade";
import { messageOf, untilDone } from "./retry.js";

/** More than that is not taken while the daemon is away. */
const STEPS_MAX = 1_000;

export interface OutgoingMessage {
  message: MessageInput;
  /** Why it cannot be saved; undefined while it still may be. */
  problem: string | undefined;
}

export interface OutboxState {
  messages: readonly OutgoingMessage[];
  /** How many steps are not finished. */
  steps: number;
  /** Why the latest step failed that is no message. */
  problem: string | undefined;
}

export class Outbox implements Readable<OutboxState> {
  readonly #db: DatabaseService;
  readonly #listeners = new Set<() => void>();
  #state: OutboxState = { messages: [], steps: 0, problem: undefined };
  #last: Promise<void> = Promise.resolve();
  #latestTime = 0;

  constructor(db: DatabaseService) {
    this.#db = db;
  }

  get value(): OutboxState {
    return this.#state;
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Send a message; `saved` is called when it is stored, before it leaves the outbox. Returns whether it was taken. */
  send(text: Omit<MessageInput, "id" | "timestamp">, saved: () => Promise<void>): boolean {
    if (this.#isFull()) return false;
    // Two messages of one millisecond would be in the order of their random ids.
    this.#latestTime = Math.max(Date.now(), this.#latestTime + 1);
    const message = { ...text, id: crypto.randomUUID(), timestamp: this.#latestTime };
    this.#set({ messages: [...this.#state.messages, { message, problem: undefined }] });
    this.#enqueue(async () => {
      try {
        await untilDone(() => this.#db.saveMessage(message));
        await saved();
        this.discard(message.id);
      } catch (error) {
        this.#set({
          messages: this.#state.messages.map((each) =>
            each.message.id === message.id ? { message, problem: messageOf(error) } : each,
          ),
        });
      }
    });
    return true;
  }

  /** Do something else that may be repeated: an edit, a deletion, a reaction. */
  run(what: string, act: () => Promise<unknown>): void {
    if (this.#isFull()) return;
    this.#enqueue(async () => {
      try {
        await untilDone(act);
      } catch (error) {
        this.#set({ problem: `${what}: ${messageOf(error)}` });
      }
    });
  }

  /** Forget a message that cannot be saved. */
  discard(id: string): void {
    this.#set({ messages: this.#state.messages.filter(({ message }) => message.id !== id) });
  }

  dismissProblem(): void {
    this.#set({ problem: undefined });
  }

  /** Fulfilled when all that was called before has its outcome. */
  finished(): Promise<void> {
    return this.#last;
  }

  #isFull(): boolean {
    const isFull = this.#state.steps >= STEPS_MAX;
    if (isFull) this.#set({ problem: "Too much is waiting to be saved. Try again when the connection is back." });
    return isFull;
  }

  #enqueue(step: () => Promise<void>): void {
    this.#set({ steps: this.#state.steps + 1 });
    this.#last = this.#last.then(step).then(() => {
      this.#set({ steps: this.#state.steps - 1 });
    });
  }

  #set(changed: Partial<OutboxState>): void {
    this.#state = { ...this.#state, ...changed };
    for (const listener of this.#listeners) listener();
  }
}
