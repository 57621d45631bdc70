/** backscroll in an application for the desktop: its main process. */

export type { Bridge } from "./bridge.js";
export {
  exposeStore,
  type AdmitOptions,
  type ExposedStore,
  type ExposeOptions,
  type FrameLike,
  type InvokeEventLike,
  type IpcMainLike,
  type WebContentsLike,
} from "./electron.js";
export type { Envelope, ErrorData } from "./envelope.js";
export type { Send } from "./outbox.js";
export type { Kind } from "./request.js";
export { preloadPath } from "./preload-path.js";
export { DEFAULT_OPERATIONS, type Session, type SessionOptions } from "./session.js";
export { type DesktopStore, openStore, type StoreOptions } from "./store.js";
