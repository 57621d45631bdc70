/**
 * The language without a connection: errors, limits, operations and types, and the interface of a store. It needs no
 * Node, so it also runs in browsers.
 */

export {
  BackscrollError,
  CallerError,
  DaemonError,
  type ErrorDetails,
  type FailedCommand,
  NoReplyError,
} from "./errors.js";
export * from "./generated/errors.js";
export { LIMITS } from "./generated/limits.js";
export {
  type JsonType,
  LEVEL,
  OPERATIONS,
  type OperationInfo,
  type OperationName,
  type Payloads,
  type QueryName,
  type Results,
} from "./generated/operations.js";
export type * from "./generated/payloads.js";
export type * from "./generated/records.js";
export { checkNumbers, invalidAt } from "./numbers.js";
export { checkedPayload, checkedRequest, checkNames } from "./plain.js";
export { mayChange, type Reads, readsOf, type WatchedName } from "./reads.js";
export type { Store, StoreEvent, StoreRequest } from "./store.js";
