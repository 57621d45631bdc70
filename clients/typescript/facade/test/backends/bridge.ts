/** The bridge between a window and the main process over a MessageChannel, as Electron's channels clone what they carry. */

import { MessageChannel } from "node:worker_threads";
import type { DesktopStore, Envelope, Session } from "@backscroll/desktop";
import { type Bridge, bridgeStore } from "@backscroll/desktop/renderer";
import type { Store, StoreEvent } from "backscroll/language";

type Kind = "command" | "query";
/** What the window sends. */
interface Asked {
  number: number;
  kind: Kind;
  request: unknown;
}
/** What the main process sends. */
type Told = { number: number; envelope: Envelope } | { event: StoreEvent };

/** A window of an application on the desktop: the session that answers it, and the store that its page uses. */
export function openBridge(desktop: DesktopStore): { session: Session; store: Store } {
  const { port1: main, port2: window } = new MessageChannel();
  const session = desktop.session({
    send: (event) => {
      main.postMessage({ event } satisfies Told);
    },
  });
  main.on("message", ({ number, kind, request }: Asked) => {
    void session.answer(kind, request).then((envelope) => {
      main.postMessage({ number, envelope } satisfies Told);
    });
  });
  for (const port of [main, window]) port.unref();
  return { session, store: bridgeStore(bridgeOver(window)) };
}

function bridgeOver(port: MessageChannel["port2"]): Bridge {
  const waiting = new Map<number, (envelope: Envelope) => void>();
  const listeners = new Set<(event: StoreEvent) => void>();
  let sent = 0;
  port.on("message", (told: Told) => {
    if ("event" in told) {
      for (const listener of listeners) listener(told.event);
    } else {
      waiting.get(told.number)?.(told.envelope);
      waiting.delete(told.number);
    }
  });
  const ask = (kind: Kind, request: unknown): Promise<Envelope> =>
    new Promise((resolve) => {
      const number = ++sent;
      waiting.set(number, resolve);
      port.postMessage({ number, kind, request } satisfies Asked);
    });
  return {
    command: (request) => ask("command", request),
    query: (request) => ask("query", request),
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
