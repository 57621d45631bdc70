import { fileURLToPath } from "node:url";

/** The path of the ready preload, for `webPreferences.preload`. It may be sandboxed. */
export const preloadPath = fileURLToPath(new URL("preload.cjs", import.meta.url));
