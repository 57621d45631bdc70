/** The store of a chat application in a browser: the operations of backscroll on IndexedDB. */

export type { LegacyOptions, LegacyReport } from "./legacy.js";
export { type BrowserStore, type BrowserStoreOptions, openBrowserStore } from "./store.js";
