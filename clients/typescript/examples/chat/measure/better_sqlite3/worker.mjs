/**
 * What the example asks at its start, on the tables of messages and reactions that backscroll has: a worker with
 * better-sqlite3, for measuring. The SQL is the same in substance: a range of the index, and the reactions of its ids.
 */

import { parentPort, workerData } from "node:worker_threads";
import Database from "better-sqlite3";

const database = new Database(workerData.file);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");

const COLUMNS =
  "id, room_id, sender_id, content, timestamp, channel_id, sender_name, edited_at, is_deleted, reply_to_id, revision, " +
  "head_hash, link_metadata, metadata, has_rare, ordinal";
const page = (where, direction) =>
  database.prepare(
    `SELECT ${COLUMNS} FROM messages WHERE room_id = ? ${where}
     ORDER BY timestamp ${direction}, ordinal ${direction}, id ${direction} LIMIT ?`,
  );
const NEWEST = page("", "DESC");
const BEFORE = page("AND (timestamp, ordinal, id) < (?, ?, ?)", "DESC");
const AFTER = page("AND (timestamp, ordinal, id) > (?, ?, ?)", "ASC");
const REACTIONS = database.prepare(
  `SELECT message_id, oder_id, emoji, id, user_id, timestamp, count, metadata FROM reactions
   WHERE message_id IN (SELECT value FROM json_each(?)) ORDER BY message_id, timestamp, oder_id, emoji`,
);
const ROOMS = database.prepare("SELECT id, name, created_at AS createdAt FROM rooms ORDER BY created_at, id");

const FIELDS = [
  ["senderId", "sender_id"],
  ["channelId", "channel_id"],
  ["senderName", "sender_name"],
  ["editedAt", "edited_at"],
  ["replyToId", "reply_to_id"],
  ["revision", "revision"],
  ["headHash", "head_hash"],
];

const OPERATIONS = {
  initialize: () => null,
  "get-all-rooms": () => ROOMS.all(),
  "get-changes": () => ({ changes: [], cursor: "0", more: false }),
  "get-message-page": messagePage,
};

function messagePage({ roomId, limit = 50, before, after }) {
  const one = limit + 1;
  let rows;
  if (before !== undefined) rows = BEFORE.all(roomId, ...JSON.parse(before), one);
  else if (after !== undefined) rows = AFTER.all(roomId, ...JSON.parse(after), one);
  else rows = NEWEST.all(roomId, one);
  const isMore = rows.length > limit;
  if (isMore) rows.pop();
  if (after === undefined) rows.reverse();
  const messages = withReactions(rows);
  const [first, last] = [rows[0], rows.at(-1)];
  return {
    messages,
    hasOlder: after === undefined ? isMore : true,
    hasNewer: after === undefined ? before !== undefined : isMore,
    ...(first && { olderCursor: cursorOf(first), newerCursor: cursorOf(last) }),
  };
}

const cursorOf = ({ timestamp, ordinal, id }) => JSON.stringify([timestamp, ordinal, id]);

function withReactions(rows) {
  const messages = new Map(rows.map((row) => [row.id, messageOf(row)]));
  for (const row of REACTIONS.iterate(JSON.stringify([...messages.keys()]))) {
    const { message_id: messageId, oder_id: oderId, emoji, timestamp } = row;
    messages.get(messageId)?.reactions.push({ messageId, oderId, emoji, timestamp });
  }
  return [...messages.values()];
}

function messageOf(row) {
  const { id, room_id: roomId, content, timestamp } = row;
  const isDeleted = row.is_deleted === 1;
  const message = {
    id,
    roomId,
    content: isDeleted ? "[Message deleted]" : content,
    timestamp,
    isDeleted,
    reactions: [],
  };
  for (const [field, column] of FIELDS) if (row[column] !== null) message[field] = row[column];
  return message;
}

parentPort.on("message", ({ id, request: { type, payload } }) => {
  try {
    const execute = OPERATIONS[type];
    if (execute === undefined) throw new Error(`${type} is not measured`);
    parentPort.postMessage({ id, envelope: { ok: true, result: execute(payload) } });
  } catch (error) {
    const problem = { code: "internal", message: error.message, fault: "daemon", retryable: false };
    parentPort.postMessage({ id, envelope: { ok: false, error: problem } });
  }
});
