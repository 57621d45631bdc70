/** The operations by their names. */

import type { Reads, Writes } from "../layout.js";
import type { Known } from "../validate.js";
import * as attachments from "./attachments.js";
import * as bans from "./bans.js";
import { getChanges } from "./feed.js";
import * as lifecycle from "./lifecycle.js";
import * as messages from "./messages.js";
import { getMessagePage } from "./pages.js";
import * as reactions from "./reactions.js";
import * as rooms from "./rooms.js";
import * as users from "./users.js";

/** What carries out a command; its payload was checked by the schema of its name. */
type Command = (payload: never, work: Writes) => Promise<unknown>;
type Query = (payload: never, work: Reads) => Promise<unknown>;

export const COMMANDS: Partial<Record<Known, Command>> = {
  "save-message": messages.saveMessage,
  "delete-message": messages.deleteMessage,
  "update-message": messages.updateMessage,
  "clear-room-messages": messages.clearRoomMessages,
  "save-reaction": reactions.saveReaction,
  "remove-reaction": reactions.removeReaction,
  "save-user": users.saveUser,
  "set-current-user-id": users.setCurrentUserId,
  "update-user": users.updateUser,
  "save-room": rooms.saveRoom,
  "delete-room": rooms.deleteRoom,
  "update-room": rooms.updateRoom,
  "save-ban": bans.saveBan,
  "remove-ban": bans.removeBan,
  "save-attachment": attachments.saveAttachment,
  "delete-attachments-for-message": attachments.deleteAttachmentsForMessage,
  initialize: lifecycle.initialize,
  "clear-all-data": lifecycle.clearAllData,
};

export const QUERIES: Partial<Record<Known, Query>> = {
  "get-messages": messages.getMessages,
  "get-message-by-id": messages.getMessageById,
  "get-message-page": getMessagePage,
  "get-reactions-for-message": reactions.getReactionsForMessage,
  "get-user": users.getUser,
  "get-current-user": users.getCurrentUser,
  "get-users-by-room": users.getUsersByRoom,
  "get-room": rooms.getRoom,
  "get-all-rooms": rooms.getAllRooms,
  "get-bans-for-room": bans.getBansForRoom,
  "is-user-banned": bans.isUserBanned,
  "get-attachments-for-message": attachments.getAttachmentsForMessage,
  "get-all-attachments": attachments.getAllAttachments,
  "get-changes": getChanges,
};
