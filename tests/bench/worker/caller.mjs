// The application's main process: starts the worker, and does what the benchmark tells it on standard input, a JSON
// object on each line; answers with one JSON object on a line. node caller.mjs FILE

import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

// Structured clone, as between Electron's processes; Node's default, JSON, is two to four times slower with pages.
const worker = fork(new URL("worker.mjs", import.meta.url), [process.argv[2]], { serialization: "advanced" });
const waiting = new Map();
let lastId = 0;
let work;

worker.on("message", ({ id, ok, result, error }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  ok ? resolve(result) : reject(new Error(error));
});
worker.on("exit", () => process.exit(1));

const orders = {
  load({ path }) {
    work = JSON.parse(readFileSync(path, "utf8"));
    return {};
  },
  save: ({ atOnce }) => timed(atOnce, work.messages, (message) => call("save-message", { message })),
  read: ({ atOnce }) => timed(atOnce, work.visits, newest),
  async readBack() {
    return { pages: await Promise.all(work.rooms.map(newest)) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await orders[order.do](order))}\n`);
}
worker.removeAllListeners("exit");
worker.disconnect();

function call(type, payload) {
  return new Promise((resolve, reject) => {
    const id = ++lastId;
    waiting.set(id, { resolve, reject });
    worker.send({ id, type, payload });
  });
}

function newest(roomId) {
  return call("get-messages", { roomId, limit: 50 });
}

/** How long `ask` takes for all items with so many of them in flight at once, whoever the callers are. */
async function timed(atOnce, items, ask) {
  const started = performance.now();
  let next = 0;
  const askInTurn = async () => {
    while (next < items.length) await ask(items[next++]);
  };
  await Promise.all(Array.from({ length: atOnce }, askInTurn));
  return { seconds: (performance.now() - started) / 1000 };
}
