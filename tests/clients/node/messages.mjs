// The messages that Python and Node both know, as each side saves them and as reads give them back.

import { readFileSync } from "node:fs";

const templates = JSON.parse(readFileSync(new URL("messages.json", import.meta.url), "utf8"));

/** The messages as `writer` saves them into the room `roomId`; their ids never meet another writer's. */
export function messagesOf(writer, roomId) {
  return templates.map((template) => {
    const message = { ...template, id: `${writer}: ${template.id}`, roomId, senderId: writer };
    if (template.reactions) {
      message.reactions = template.reactions.map((reaction) => ({ ...reaction, messageId: message.id }));
    }
    return message;
  });
}

/** The same messages as a read gives them: every list there, everything in its order. */
export function asRead(messages) {
  return messages
    .map((message) => ({ ...message, isDeleted: false, reactions: sorted(message.reactions ?? [], byReaction) }))
    .sort(byKeys((message) => [message.timestamp, message.id]));
}

const byReaction = byKeys((reaction) => [reaction.timestamp, reaction.oderId, reaction.emoji]);

function sorted(items, order) {
  return [...items].sort(order);
}

/** Numbers by value, text by its UTF-8 bytes: JavaScript's own order of text is that of UTF-16. */
function byKeys(keysOf) {
  return (left, right) => {
    const [a, b] = [keysOf(left), keysOf(right)];
    const differences = a.map((key, index) =>
      typeof key === "number" ? key - b[index] : Buffer.compare(Buffer.from(key), Buffer.from(b[index])),
    );
    return differences.find((difference) => difference !== 0) ?? 0;
  };
}
