/** What a chat application's user interface uses of backscroll. */

export { NotReadyError, ScopeSwitchedError } from "./errors.js";
export { LiveQuery } from "./live.js";
export type { Readable } from "./readable.js";
export { type AppResume, appResume, type KeyValueStorage, type LastChat, type LaunchSettings } from "./resume.js";
export { DatabaseService, type Options } from "./service.js";
