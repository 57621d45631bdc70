/** The bridge between a renderer and the main process: what a renderer sees of it, and what crosses the channel. */

import type { StoreEvent } from "backscroll/language";

/** The channel, and the name in `window`, if none is given. */
export const BACKSCROLL = "backscroll";

/** What the preload exposes to the page: exactly these three functions. */
export interface Bridge {
  /** Send a command, `{ type, payload }`; fulfils with an envelope, which `bridgeStore` opens. */
  command(request: unknown): Promise<unknown>;
  /** Send a query, `{ type, payload }`; fulfils with an envelope. */
  query(request: unknown): Promise<unknown>;
  /** Calls the listener with each event of the open account, until the returned function is called. */
  subscribe(listener: (event: StoreEvent) => void): () => void;
}
