/** For the preload: what it exposes to the page. This file becomes `preload.cjs` too, and so imports nothing. */

import type { StoreEvent } from "backscroll/language";
import type { Bridge } from "./bridge.js";

export type { Bridge } from "./bridge.js";

/** Electron's `contextBridge`, as far as it is used here. */
export interface ContextBridgeLike {
  /** Puts an object into the page's window. */
  exposeInMainWorld(name: string, api: unknown): void;
}

/** Electron's `ipcRenderer`, as far as it is used here. */
export interface IpcRendererLike {
  /** Asks the handler of a channel. */
  invoke(channel: string, ...values: unknown[]): Promise<unknown>;
  /** Calls the listener with each message of a channel. */
  on(channel: string, listener: (event: unknown, ...values: unknown[]) => void): unknown;
}

/** The names that the bridge has. */
export interface BridgeOptions {
  /** The channel that `exposeStore` answers: `backscroll` if left out. */
  channel?: string | undefined;
  /** The name of the bridge in `window`: `backscroll` if left out. */
  name?: string | undefined;
}

/**
 * Expose the bridge to the page, and nothing else: `command`, `query` and `subscribe`. Listeners get no objects of
 * Electron.
 */
export function exposeBridge(
  contextBridge: ContextBridgeLike,
  ipcRenderer: IpcRendererLike,
  { channel = "backscroll", name = "backscroll" }: BridgeOptions = {},
): void {
  // A page that was loaded again has another id, so that the main process does not take it for the one before.
  const page = `${String(Date.now())}-${String(Math.random())}`;
  const listeners = new Set<{ listener: (event: StoreEvent) => void }>();
  ipcRenderer.on(channel, (_, to, event) => {
    if (to !== page) return;
    void ipcRenderer.invoke(channel, page, "received").catch(() => undefined);
    for (const entry of listeners) {
      // In a turn of its own: what one listener throws must not keep the event from the others.
      queueMicrotask(() => {
        if (listeners.has(entry)) entry.listener(event as StoreEvent);
      });
    }
  });
  void ipcRenderer.invoke(channel, page, "hello").catch(() => undefined);
  const bridge: Bridge = {
    command: (request) => ipcRenderer.invoke(channel, page, "command", request),
    query: (request) => ipcRenderer.invoke(channel, page, "query", request),
    subscribe: (listener) => {
      const entry = { listener };
      listeners.add(entry);
      return () => {
        listeners.delete(entry);
      };
    },
  };
  contextBridge.exposeInMainWorld(name, bridge);
}
