/** Runs histories on IndexedDB, by fake-indexeddb in Node, each in a database of its own. */

import "fake-indexeddb/auto";
import { type BrowserStore, openBrowserStore } from "@backscroll/browser";
import type { Store } from "backscroll/language";
import type { Runner } from "./compare.js";
import { run } from "./steps.js";

let databases = 0;

/** Runs each history in a new database; `wrap` may change the store that is run on. */
export function indexedDbRunner(wrap = (store: Store): Store => store): Runner {
  return async (history, pools) => {
    const browser = new Browser();
    const store = await browser.openTab("ada");
    try {
      return await run(wrap(store), history, pools);
    } finally {
      await browser.close();
    }
  };
}

/** Tabs that have the databases of their accounts in common with one another, and with nobody else. */
export class Browser {
  readonly #name = `histories-${String((databases += 1))}`;
  readonly #tabs: BrowserStore[] = [];

  /** A tab in which an account is open. */
  async openTab(account: string): Promise<Store> {
    const store = openBrowserStore({ name: this.#name });
    this.#tabs.push(store);
    await store.switchScope(account);
    return store;
  }

  /** Close the tabs, and remove their databases. */
  async close(): Promise<void> {
    for (const tab of this.#tabs) await tab.close();
    for (const { name } of await indexedDB.databases()) {
      if (name?.startsWith(`${this.#name}:`)) indexedDB.deleteDatabase(name);
    }
  }
}
