// Save a message and read its room: npm install zeromq, then node example.mjs [ENDPOINT]
import { readFileSync } from "node:fs";
import { Request } from "zeromq";

const socket = new Request();
const daemon = process.argv[2] ? { endpoints: [process.argv[2]] } : JSON.parse(readFileSync("endpoint.json"));
socket.connect(daemon.endpoints[0]);

async function call(type, payload) {
  await socket.send(JSON.stringify({ id: crypto.randomUUID(), type, payload, auth: daemon.token }));
  const [body] = await socket.receive();
  const reply = JSON.parse(body);
  if (!reply.ok) throw new Error(reply.error.message);
  return reply.result;
}

const message = { id: "js1", roomId: "r1", senderId: "ada", content: "hello from JavaScript 👋", timestamp: Date.now() };
await call("save-message", { message });
console.log(await call("get-messages", { roomId: "r1" }));
