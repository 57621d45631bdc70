/** IndexedDB: the browser's own, or in Node that of fake-indexeddb, which the run names as a setup file too. */

import { type BrowserStore, openBrowserStore } from "@backscroll/browser";
import { useBackend } from "../suite/backend.js";

const stores: BrowserStore[] = [];

useBackend({
  openStore: () => {
    const store = openBrowserStore();
    stores.push(store);
    return Promise.resolve(store);
  },
  closeStores: async () => {
    await Promise.all(stores.splice(0).map((store) => store.close()));
  },
});
