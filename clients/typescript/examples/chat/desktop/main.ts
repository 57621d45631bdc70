/**
 * The desktop variant without Electron: this process is in the place of Electron's main process, a browser in that of
 * its windows, and a WebSocket in that of its channel. electron/main.ts does the same in Electron.
 */

import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { openStore } from "@backscroll/desktop";
import { serve } from "./serve.js";

const { values } = parseArgs({
  options: {
    "data-dir": { type: "string", default: "./data" },
    /** A port of its own, because the browser keeps the last place of each account by the page's address. */
    port: { type: "string", default: "5180" },
    /** The program of the daemon, if it is not the one of the npm package or on the `PATH`. */
    daemon: { type: "string" },
  },
});

const store = await openStore({
  dataDir: values["data-dir"],
  ...(values.daemon !== undefined && { command: [values.daemon] }),
  onProblem: (problem) => {
    console.error(problem);
  },
});
const url = await serve({
  port: Number(values.port),
  token: randomBytes(32).toString("base64url"),
  connect: (send) => store.session({ send }),
});
console.log(`Open ${url}`);

const stop = (): void => {
  void store.close().finally(() => process.exit());
};
process.once("SIGINT", stop);
process.once("SIGTERM", stop);
