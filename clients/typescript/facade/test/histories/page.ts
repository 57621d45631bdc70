/** What runs in a page: `chromium.ts` bundles this file. */

import { type BrowserStore, openBrowserStore } from "@backscroll/browser";
import { CallerError, type OperationName, type StoreEvent } from "backscroll/language";
import { type History, type Pools, run, send } from "./steps.js";

/** What came of a call: a result, or an error in fields. */
export type Reply =
  | { ok: true; result: unknown }
  | { ok: false; isCaller: boolean; code: string; message: string; details: Record<string, unknown> | undefined };

/** What a test calls in a page. All of it answers in JSON. */
export interface PageCalls {
  /** The outcomes of a history in a new account. */
  runHistory(history: History, pools: Pools): Promise<string>;
  /** Open the page's own store; what happens there is told to `window.tell`. */
  openStore(name: string): void;
  switchScope(account: string): Promise<string>;
  call(type: OperationName, payload: unknown): Promise<string>;
}

declare global {
  interface Window {
    calls: PageCalls;
    tell(event: StoreEvent): Promise<void>;
  }
}

let accounts = 0;
const idle: BrowserStore[] = [];
let own: BrowserStore | undefined;

window.calls = {
  async runHistory(history, pools) {
    const store = idle.pop() ?? openBrowserStore({ name: "histories" });
    await store.switchScope(`account-${String((accounts += 1))}`);
    const outcomes = await run(store, history, pools);
    idle.push(store);
    return JSON.stringify(outcomes);
  },
  openStore(name) {
    own = openBrowserStore({ name });
    own.subscribe((event) => void window.tell(event));
  },
  switchScope: (account) => replyOf((store) => store.switchScope(account)),
  call: (type, payload) => replyOf((store) => send(store, type, payload)),
};

async function replyOf(act: (store: BrowserStore) => Promise<unknown>): Promise<string> {
  let reply: Reply;
  try {
    if (own === undefined) throw new Error("no store was opened");
    reply = { ok: true, result: await act(own) };
  } catch (error) {
    const { message, code = "none", details } = error as { message: string; code?: string; details?: undefined };
    reply = { ok: false, isCaller: error instanceof CallerError, code, message, details };
  }
  return JSON.stringify(reply);
}
