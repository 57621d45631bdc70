import { openBrowserStore } from "@backscroll/browser";

const store = openBrowserStore();
store.subscribe((event) => {
  if (event.type === "changed") console.log(event.changes.map(({ noun, id }) => `${noun} ${id ?? ""}`));
});
await store.switchScope("ada"); // the account: a database of its own

const message = { id: "m1", roomId: "r1", senderId: "ada", content: "hello", timestamp: Date.now() };
await store.command({ type: "save-message", payload: { message } });

const page = await store.query({ type: "get-message-page", payload: { roomId: "r1", limit: 50 } });
console.log(page.messages.map(({ content }) => content)); // older ones: { before: page.olderCursor }
await store.close();
