/** The events on their way to one window: one is sent at a time, and what comes meanwhile is merged. */

import type { StoreEvent } from "backscroll/language";

type Changes = Extract<StoreEvent, { type: "changed" }>["changes"];
type Disconnected = Extract<StoreEvent, { type: "disconnected" }>;

/**
 * Sends an event; the promise is fulfilled when the window took it. When the window is gone it has to be settled too: a
 * switch waits for it.
 */
export type Send = (event: StoreEvent) => void | Promise<void>;

/** So many changes wait for a window; if there are more, it is told to read everything anew. */
export const WAITING_CHANGES_MAX = 1_000;

export class Outbox {
  readonly #send: Send;
  #isOpen = false;
  #isClosed = false;
  #changes: Changes = [];
  #gap = false;
  #problem: Disconnected | undefined;
  #toldDisconnected: boolean;
  #isSending = false;
  /** Fulfilled when the window took what was sent so far. */
  #sent: Promise<void> = Promise.resolve();

  /** `toldDisconnected` is what the window knows from the outbox before this one. */
  constructor(send: Send, toldDisconnected = false) {
    this.#send = send;
    this.#toldDisconnected = toldDisconnected;
  }

  /** Whether the window was told last that the daemon does not answer. */
  get toldDisconnected(): boolean {
    return this.#toldDisconnected;
  }

  /** Begin to send; what was pushed before is kept until then. */
  open(): void {
    this.#isOpen = true;
    this.#pump();
  }

  /** Send nothing more; fulfils when the window took the event that is on its way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#changes = [];
    await this.#sent;
  }

  push(event: StoreEvent): void {
    if (this.#isClosed) return;
    switch (event.type) {
      case "changed":
        if (this.#gap) break;
        this.#changes = this.#changes.length === 0 ? event.changes : [...this.#changes, ...event.changes];
        if (this.#changes.length > WAITING_CHANGES_MAX) this.#setGap();
        break;
      case "gap":
        this.#setGap();
        break;
      case "disconnected":
        this.#problem = event;
        break;
      case "connected":
        this.#problem = undefined;
    }
    this.#pump();
  }

  #setGap(): void {
    this.#gap = true;
    this.#changes = [];
  }

  #pump(): void {
    if (!this.#isOpen || this.#isSending) return;
    this.#isSending = true;
    this.#sent = this.#sendAll();
  }

  async #sendAll(): Promise<void> {
    try {
      for (let event = this.#take(); event !== undefined; event = this.#take()) await this.#send(event);
    } catch {
      this.#setGap(); // it was lost; the window is told with the next event that there is
    }
    this.#isSending = false; // in the same turn as the last look, so that nothing is pushed in between
  }

  #take(): StoreEvent | undefined {
    if (this.#isClosed) return undefined;
    if ((this.#problem !== undefined) !== this.#toldDisconnected) {
      this.#toldDisconnected = this.#problem !== undefined;
      return this.#problem ?? { type: "connected" };
    }
    if (this.#gap) {
      this.#gap = false;
      return { type: "gap" };
    }
    const changes = this.#changes;
    this.#changes = [];
    return changes.length === 0 ? undefined : { type: "changed", changes };
  }
}
