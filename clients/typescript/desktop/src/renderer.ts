/** For the page: a store, over the bridge that the preload exposed. It needs no Node, and nothing of Electron. */

import {
  checkedPayload,
  checkedRequest,
  InvalidError,
  NoReplyError,
  OPERATIONS,
  type OperationName,
  type Results,
  type Store,
  type StoreEvent,
  type StoreRequest,
} from "backscroll/language";
import type { Bridge } from "./bridge.js";
import { unwrap } from "./envelope.js";
import { type Kind, SWITCH_SCOPE } from "./request.js";

export type { Bridge } from "./bridge.js";
export type { Envelope, ErrorData } from "./envelope.js";

declare global {
  /** The page's window, with the bridge where the preload exposed it. */
  interface Window {
    backscroll?: Bridge;
  }
}

/**
 * The store behind a bridge. Its requests are rejected with the errors of the language, as if they were called in the
 * main process. Throws `InvalidError` if there is no bridge.
 *
 * @example
 * const store = bridgeStore(window.backscroll);
 */
export function bridgeStore(bridge: Bridge | undefined): Store {
  if (bridge === undefined) {
    const problem =
      "there is no bridge: name the preload in `webPreferences`, and admit the window in the main process";
    throw new InvalidError(problem, { code: "invalid" });
  }
  return new BridgeStore(bridge);
}

class BridgeStore implements Store {
  readonly #bridge: Bridge;

  constructor(bridge: Bridge) {
    this.#bridge = bridge;
  }

  async switchScope(scope: string): Promise<void> {
    await this.#ask("command", { type: SWITCH_SCOPE, payload: { scope } });
  }

  async command<Name extends OperationName>(request: StoreRequest<Name>): Promise<Results[Name]> {
    return (await this.#ask("command", request)) as Results[Name];
  }

  async query<Name extends OperationName>(request: StoreRequest<Name>): Promise<Results[Name]> {
    return (await this.#ask("query", request)) as Results[Name];
  }

  subscribe(listener: (event: StoreEvent) => void): () => void {
    return this.#bridge.subscribe(listener);
  }

  async #ask(kind: Kind, request: unknown): Promise<unknown> {
    const { type, payload } = checkedRequest(request);
    // What cannot cross is refused here, where it was called.
    const { bytesFields } = Object.hasOwn(OPERATIONS, type) ? OPERATIONS[type as OperationName] : {};
    const copy = { type, payload: checkedPayload(payload, bytesFields).payload };
    let envelope: unknown;
    try {
      envelope = await this.#bridge[kind](copy);
    } catch (error) {
      throw new NoReplyError(`the main process did not answer: ${error instanceof Error ? error.message : ""}`);
    }
    return unwrap(envelope);
  }
}
