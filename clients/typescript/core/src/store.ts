/** What a user interface sees of a store, wherever that is: a daemon behind a bridge, or IndexedDB. */

import type { OperationName, Payloads, Results } from "./generated/operations.js";
import type { ItemChange } from "./generated/records.js";

/** One operation: its name and its payload, and nothing else. */
export interface StoreRequest<Name extends OperationName = OperationName> {
  type: Name;
  payload: Payloads[Name];
}

/** What a store tells its listeners. */
export type StoreEvent =
  /** Commands of this or another window took effect; without the items' values. */
  | { type: "changed"; changes: readonly ItemChange[] }
  /** Anything may have changed: read everything anew. */
  | { type: "gap" }
  /** The daemon does not answer; requests wait until it does, or until their time is over. */
  | { type: "disconnected"; problem: { code: string; message: string } }
  /** The daemon answers again. */
  | { type: "connected" };

/**
 * A store of one account at a time. Requests take effect in the order of the calls, and are rejected with the errors of
 * the language. `switchScope` comes first; the requests after it are for the account of that name, and listeners are
 * told of all changes in it that no later query shows already.
 */
export interface Store {
  /** Open the data of an account, and leave that of the one before. */
  switchScope(scope: string): Promise<void>;
  /** Execute a command; it is on disk when the promise is fulfilled. */
  command<Name extends OperationName>(request: StoreRequest<Name>): Promise<Results[Name]>;
  /** Ask a query; it sees all commands that were called before it. */
  query<Name extends OperationName>(request: StoreRequest<Name>): Promise<Results[Name]>;
  /** Calls the listener with each event, until the returned function is called. */
  subscribe(listener: (event: StoreEvent) => void): () => void;
}
