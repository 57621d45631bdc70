/** IndexedDB in a real browser. */

import { useBackend } from "../suite/backend.js";

useBackend({
  openStore: () => Promise.reject(new Error("the store for browsers comes with @backscroll/browser")),
  closeStores: () => Promise.resolve(),
});
