// The database worker of an Electron application as it is written today: better-sqlite3 in a child process.
// One transaction a save, prepared statements, a write-ahead log, synchronous FULL. node worker.mjs FILE

import Database from "better-sqlite3";

const db = new Database(process.argv[2]);
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.pragma("foreign_keys = ON");
if (db.pragma("synchronous", { simple: true }) !== 2) throw new Error("commits are not durable");
db.pragma("cache_size = -16384");

const insertMessage = db.prepare(`
  INSERT OR REPLACE INTO messages (id, room_id, sender_id, content, timestamp, channel_id, sender_name, edited_at,
    is_deleted, reply_to_id, revision, head_hash, link_metadata, metadata)
  VALUES (@id, @roomId, @senderId, @content, @timestamp, @channelId, @senderName, @editedAt,
    @isDeleted, @replyToId, @revision, @headHash, @linkMetadata, @metadata)`);
const deleteReactions = db.prepare("DELETE FROM reactions WHERE message_id = ?");
const insertReaction = db.prepare(`
  INSERT INTO reactions (message_id, oder_id, emoji, id, user_id, timestamp)
  VALUES (@messageId, @oderId, @emoji, @id, @userId, @timestamp)`);
const selectNewest = db.prepare(`
  SELECT id, room_id, sender_id, content, timestamp, channel_id, sender_name, edited_at, is_deleted, reply_to_id,
    revision, head_hash, link_metadata, metadata
  FROM messages WHERE room_id = ? ORDER BY timestamp DESC, ordinal DESC, id DESC LIMIT ?`);
const selectReactions = db.prepare(`
  SELECT message_id, oder_id, emoji, id, user_id, timestamp FROM reactions
  WHERE message_id IN (SELECT value FROM json_each(?)) ORDER BY message_id, timestamp, oder_id, emoji`);

const operations = {
  "save-message": db.transaction(({ message }) => {
    insertMessage.run(messageRow(message));
    deleteReactions.run(message.id);
    for (const reaction of message.reactions ?? []) {
      insertReaction.run({ id: null, userId: null, timestamp: null, ...reaction });
    }
  }),

  "get-messages"({ roomId, limit }) {
    const rows = selectNewest.all(roomId, limit).reverse();
    const reactions = new Map(rows.map((row) => [row.id, []]));
    for (const row of selectReactions.all(JSON.stringify([...reactions.keys()]))) {
      reactions.get(row.message_id).push(reactionOf(row));
    }
    return rows.map((row) => messageOf(row, reactions.get(row.id)));
  },
};

process.on("message", ({ id, type, payload }) => {
  try {
    process.send({ id, ok: true, result: operations[type](payload) ?? null });
  } catch (error) {
    process.send({ id, ok: false, error: error.message });
  }
});

function messageRow(message) {
  return {
    id: message.id,
    roomId: message.roomId,
    senderId: message.senderId,
    content: message.content,
    timestamp: message.timestamp,
    channelId: message.channelId ?? null,
    senderName: message.senderName ?? null,
    editedAt: message.editedAt ?? null,
    isDeleted: message.isDeleted ? 1 : 0,
    replyToId: message.replyToId ?? null,
    revision: message.revision ?? null,
    headHash: message.headHash ?? null,
    linkMetadata: message.linkMetadata ? JSON.stringify(message.linkMetadata) : null,
    metadata: message.metadata ? JSON.stringify(message.metadata) : null,
  };
}

function messageOf(row, reactions) {
  const message = {
    id: row.id,
    roomId: row.room_id,
    senderId: row.sender_id,
    content: row.content,
    timestamp: row.timestamp,
    isDeleted: row.is_deleted === 1,
    reactions,
  };
  if (row.channel_id !== null) message.channelId = row.channel_id;
  if (row.sender_name !== null) message.senderName = row.sender_name;
  if (row.edited_at !== null) message.editedAt = row.edited_at;
  if (row.reply_to_id !== null) message.replyToId = row.reply_to_id;
  if (row.revision !== null) message.revision = row.revision;
  if (row.head_hash !== null) message.headHash = row.head_hash;
  if (row.link_metadata !== null) message.linkMetadata = JSON.parse(row.link_metadata);
  if (row.metadata !== null) message.metadata = JSON.parse(row.metadata);
  return message;
}

function reactionOf(row) {
  const reaction = { messageId: row.message_id, oderId: row.oder_id, emoji: row.emoji };
  if (row.id !== null) reaction.id = row.id;
  if (row.user_id !== null) reaction.userId = row.user_id;
  if (row.timestamp !== null) reaction.timestamp = row.timestamp;
  return reaction;
}
