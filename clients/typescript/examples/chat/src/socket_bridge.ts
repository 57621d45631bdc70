/**
 * The bridge of the desktop variant, as Electron's preload exposes it, over a WebSocket: a request has a number, and its
 * reply has the same one and the envelope; what has none is an event.
 */

import type { Bridge, Envelope } from "@backscroll/desktop/renderer";
import type { StoreEvent } from "backscroll/language";

export type FromServer = { id: number; envelope: Envelope } | { event: StoreEvent };

/** Connect to the process that has the store; it admits only those who know the token. */
export async function socketBridge(token: string): Promise<Bridge> {
  const socket = new WebSocket(`ws://${location.host}/bridge?token=${encodeURIComponent(token)}`);
  const waiting = new Map<number, (envelope: Envelope) => void>();
  const listeners = new Set<(event: StoreEvent) => void>();
  let latestId = 0;

  socket.addEventListener("message", ({ data }: MessageEvent<string>) => {
    const message = JSON.parse(data) as FromServer;
    if ("event" in message) {
      for (const listener of listeners) listener(message.event);
    } else {
      waiting.get(message.id)?.(message.envelope);
      waiting.delete(message.id);
    }
  });
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", () => {
      reject(new Error("The application does not answer. Start it again."));
    });
  });
  const ask = (kind: "command" | "query", request: unknown): Promise<Envelope> =>
    new Promise((resolve) => {
      latestId += 1;
      waiting.set(latestId, resolve);
      socket.send(JSON.stringify({ id: latestId, kind, request }));
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
