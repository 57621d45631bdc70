/** A client of backscroll, a storage daemon for chat applications. */

export { type DaemonLocation } from "./address.js";
export { Client, type ClientOptions, type Logger, type RequestOptions } from "./client.js";
export { open, type OpenOptions } from "./daemon.js";
export {
  BackscrollError,
  CallerError,
  DaemonError,
  type ErrorDetails,
  type FailedCommand,
  FeedGapError,
  NoReplyError,
} from "./errors.js";
export { Changes, type ChangesOptions, FeedIterator, type Watched, type WatchOptions } from "./feed.js";
export * from "./generated/errors.js";
export { LIMITS } from "./generated/limits.js";
export { LEVEL, type OperationName, type Payloads, type QueryName, type Results } from "./generated/operations.js";
export type * from "./generated/payloads.js";
export type * from "./generated/records.js";
export { type ByteSource, type DownloadOptions, type UploadOptions } from "./media.js";
export { type Answer } from "./pending.js";
export { type WatchedName } from "./reads.js";
