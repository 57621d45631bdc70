// Save a message and read its room: node example.mjs [DATA_DIR]
import { open } from "backscroll";

const client = await open(process.argv[2] ?? "./data"); // starts a daemon if none serves the directory
const message = { id: "m1", roomId: "home", senderId: "ada", content: "Hello!", timestamp: Date.now() };
await client.saveMessage({ message });
await client.saveReaction({ reaction: { messageId: "m1", oderId: "bo", emoji: "👋" } });
const { messages } = await client.getMessagePage({ roomId: "home", limit: 50 });
for (const { senderId, content, reactions } of messages) {
  console.log(`${senderId}: ${content} ${reactions?.map(({ emoji }) => emoji).join("") ?? ""}`);
}
client.close();
