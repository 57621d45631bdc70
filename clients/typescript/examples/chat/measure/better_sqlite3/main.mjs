/** The desktop variant on a better-sqlite3 worker: node main.mjs DATABASE PORT TOKEN */

import { Worker } from "node:worker_threads";
import { serve } from "../../build/node/desktop/serve.js";

const [file, port, token] = process.argv.slice(2);
const worker = new Worker(new URL("worker.mjs", import.meta.url), { workerData: { file } });
const waiting = new Map();
let latestId = 0;
worker.on("message", ({ id, envelope }) => {
  waiting.get(id)(envelope);
  waiting.delete(id);
});

const answer = (_, request) =>
  request.type === "switch-scope"
    ? Promise.resolve({ ok: true, result: null })
    : new Promise((resolve) => {
        latestId += 1;
        waiting.set(latestId, resolve);
        worker.postMessage({ id: latestId, request });
      });
const url = await serve({ port: Number(port), token, connect: () => ({ answer, close: () => Promise.resolve() }) });
console.log(`Open ${url}`);
