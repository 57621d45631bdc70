// What the benchmark does from Node, with our client or with npm's zeromq and plain JSON, each installed beside this file.
//
//   node driver.mjs backscroll|zeromq ENDPOINT
//
// Each line of standard input is an order, a JSON object; so is the answer to it, on standard output.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [library, endpoint] = process.argv.slice(2);
const TIMEOUT_MS = 60_000;

async function withClient() {
  const { Client } = await import("backscroll");
  const client = new Client({ endpoint, timeoutMs: TIMEOUT_MS });
  return (type, payload) => client.call(type, payload);
}

async function withZeromq() {
  const { Dealer } = await import("zeromq");
  const socket = new Dealer({ linger: 0, sendHighWaterMark: 0, receiveHighWaterMark: 0 });
  socket.connect(endpoint);
  const waiting = new Map();
  const begun = Date.now().toString(36); // ids that grow with time, as those of our clients do
  let sent = 0;
  let sending = Promise.resolve(); // the library sends one message at a time
  const receive = async () => {
    for await (const [body] of socket) {
      const reply = JSON.parse(body.toString());
      const { resolve, reject } = waiting.get(reply.id);
      waiting.delete(reply.id);
      if (reply.ok) resolve(reply.result);
      else reject(new Error(reply.error.message));
    }
  };
  void receive();
  return (type, payload) =>
    new Promise((resolve, reject) => {
      const id = `${begun}-${String(++sent).padStart(9, "0")}`;
      waiting.set(id, { resolve, reject });
      sending = sending.then(() => socket.send(JSON.stringify({ id, type, payload, deadlineMs: TIMEOUT_MS })));
    });
}

const call = library === "zeromq" ? await withZeromq() : await withClient();
const newest = (roomId) => call("get-message-page", { roomId, limit: 50 });
let work;

const orders = {
  load({ path }) {
    work = JSON.parse(readFileSync(path, "utf8"));
    return {};
  },
  ping: ({ count }) => timed(1, Array.from({ length: count }), () => call("ping", {})),
  save: ({ inFlight }) => timed(inFlight, work.messages, (message) => call("save-message", { message })),
  read: ({ inFlight }) => timed(inFlight, work.visits, newest),
  async readBack() {
    return { pages: (await Promise.all(work.rooms.map(newest))).map(({ messages }) => messages) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await orders[order.do](order))}\n`);
}
process.exit(0);

/** How long it takes to ask for all items with so many of them in flight. */
async function timed(inFlight, items, ask) {
  const started = performance.now();
  let next = 0;
  const askInTurn = async () => {
    while (next < items.length) await ask(items[next++]);
  };
  await Promise.all(Array.from({ length: inFlight }, askInTurn));
  return { seconds: (performance.now() - started) / 1000 };
}
