/** What a chat application's user interface uses of backscroll. */

export {
  type Attachment,
  type AttachmentInput,
  BackscrollError,
  type Ban,
  type BanInput,
  type ChangePage,
  type GetChanges,
  type GetMessagePage,
  type Message,
  type MessageInput,
  type MessagePage,
  type MessageUpdates,
  type Reaction,
  type ReactionInput,
  type Room,
  type RoomInput,
  type RoomMember,
  type RoomUpdates,
  type Store,
  type User,
  type UserInput,
  type UserUpdates,
} from "backscroll/language";
export { NotReadyError, ScopeSwitchedError } from "./errors.js";
export { LiveQuery } from "./live.js";
export type { Readable } from "./readable.js";
export { type AppResume, appResume, type KeyValueStorage, type LastChat, type LaunchSettings } from "./resume.js";
export { DatabaseService, type Options } from "./service.js";
