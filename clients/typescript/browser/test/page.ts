/** What tests call in a page of a real browser. */

import type { MessageInput, MessagePage, StoreEvent } from "backscroll/language";
import { BackscrollError } from "backscroll/language";
import { rowOf } from "../src/operations/rows.js";
import { type BrowserStore, openBrowserStore } from "../src/index.js";

const stores: BrowserStore[] = [];
const events: StoreEvent[] = [];
const AT = 1_767_225_600_000;

function store(): BrowserStore {
  const [opened] = stores;
  if (opened === undefined) throw new Error("no store is open");
  return opened;
}

function messageOf(number: number, content = `message ${String(number)}`): MessageInput {
  return { id: `m${String(number)}`, roomId: "r1", senderId: "ada", content, timestamp: AT + number };
}

async function timed(act: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await act();
  return performance.now() - begun;
}

function pageOf(payload: { limit?: number; around?: string; before?: string }): Promise<MessagePage> {
  return store().query({ type: "get-message-page", payload: { roomId: "r1", ...payload } });
}

const calls = {
  async open(scope: string): Promise<void> {
    const opened = openBrowserStore({ persist: false });
    opened.subscribe((event) => events.push(event));
    stores.push(opened);
    await opened.switchScope(scope);
  },

  save(number: number, content?: string): Promise<unknown> {
    return store().command({ type: "save-message", payload: { message: messageOf(number, content) } });
  },

  /** The error of a save, if it fails. */
  async saveError(
    number: number,
    chars: number,
  ): Promise<{ code: string; retryable: boolean; message: string } | null> {
    let content = "";
    while (content.length < chars) content += Math.random().toString(36).slice(2);
    try {
      await calls.save(number, content);
      return null;
    } catch (error) {
      if (!(error instanceof BackscrollError)) throw error;
      return { code: error.code, retryable: error.retryable, message: error.message };
    }
  },

  /** Save messages without waiting for each. */
  fill(from: number, to: number): Promise<number> {
    return timed(async () => {
      for (let number = from; number < to; number += 500) {
        const some = Array.from({ length: Math.min(500, to - number) }, (_, at) => calls.save(number + at));
        await Promise.all(some);
      }
    });
  },

  /** Open an account that adopts a legacy database with so many messages; how long that takes. */
  async adopt(number: number): Promise<number> {
    const opening = indexedDB.open("legacy", 2);
    opening.onupgradeneeded = (): void => {
      const messages = opening.result.createObjectStore("messages", { keyPath: "id" });
      for (let at = 0; at < number; at++) messages.put(messageOf(at));
      opening.result.createObjectStore("meta", { keyPath: "key" }).put({ key: "currentUserId", value: "figures" });
    };
    await new Promise((resolve) => (opening.onsuccess = resolve));
    opening.result.close();
    await store().switchScope("other");
    stores.unshift(openBrowserStore({ persist: false, legacy: { databaseName: "legacy" } }));
    return timed(() => store().switchScope("figures"));
  },

  saveUnawaited(from: number, to: number): void {
    for (let number = from; number < to; number++) void calls.save(number);
  },

  async ids(): Promise<string[]> {
    const found: string[] = [];
    let before: string | undefined;
    for (;;) {
      const page = await pageOf({ limit: 500, ...(before !== undefined && { before }) });
      found.unshift(...page.messages.map(({ id }) => id));
      before = page.olderCursor;
      if (!page.hasOlder) return found;
    }
  },

  seqs(): number[] {
    return events.flatMap((each) => (each.type === "changed" ? each.changes.map(({ seq }) => seq) : []));
  },

  kinds(): string[] {
    return events.map(({ type }) => type);
  },

  /** Write messages into the database as they are stored, which is faster than to save them. */
  async fillRows(from: number, to: number): Promise<void> {
    const opening = indexedDB.open("backscroll:figures");
    await new Promise((resolve) => (opening.onsuccess = resolve));
    for (let start = from; start < to; start += 5_000) {
      const tx = opening.result.transaction("messages", "readwrite");
      for (let number = start; number < Math.min(start + 5_000, to); number++) {
        tx.objectStore("messages").put(
          rowOf({
            id: `m${String(number)}`,
            roomId: "r1",
            content: `message ${String(number)}`,
            timestamp: AT + number,
            isDeleted: false,
          }),
        );
      }
      await new Promise((resolve) => (tx.oncomplete = resolve));
    }
    opening.result.close();
  },

  /** The median and the greatest time of pages, in milliseconds. */
  async pageTimes(payloads: { limit?: number; around?: string }[]): Promise<[median: number, max: number]> {
    const times: number[] = [];
    for (const payload of payloads) times.push(await timed(() => pageOf(payload)));
    times.sort((one, other) => one - other);
    return [times[Math.floor(times.length / 2)] ?? 0, times.at(-1) ?? 0];
  },

  time(type: "save" | "offset" | "clear" | "open", number: number): Promise<number> {
    switch (type) {
      case "save":
        return timed(() => calls.save(number));
      case "offset":
        return timed(() => store().query({ type: "get-messages", payload: { roomId: "r1", offset: number } }));
      case "clear":
        return timed(() => store().command({ type: "clear-room-messages", payload: { roomId: "r1" } }));
      case "open":
        return timed(() => store().switchScope("figures"));
    }
  },
};

export type Calls = typeof calls;

declare global {
  interface Window {
    calls: Calls;
  }
}

window.calls = calls;
