/**
 * The bridge of the desktop variant, as Electron's preload exposes it, over a WebSocket: a request has a number, and its
 * reply has the same one and the envelope; what has none is an event.
 */

import type { Bridge, Envelope } from "@backscroll/desktop/renderer";
import type { StoreEvent } from "backscroll/language";

const GONE = "the application was closed: start it again, and open the address that it prints";

type FromServer = { id: number; envelope: Envelope } | { event: StoreEvent };

/**
 * Connect to the process that has the store; it admits only those who know the token. `ended` is called when the process
 * has ended, with what to do. That is for good: the next process has another token.
 */
export async function socketBridge(token: string, ended: (why: string) => void): Promise<Bridge> {
  const socket = new WebSocket(`ws://${location.host}/bridge?token=${encodeURIComponent(token)}`);
  const waiting = new Map<number, { resolve: (envelope: Envelope) => void; reject: (reason: Error) => void }>();
  const listeners = new Set<(event: StoreEvent) => void>();
  let latestId = 0;
  const tell = (event: StoreEvent): void => {
    for (const listener of listeners) listener(event);
  };

  socket.addEventListener("message", ({ data }: MessageEvent<string>) => {
    const message = JSON.parse(data) as FromServer;
    if ("event" in message) {
      tell(message.event);
    } else {
      waiting.get(message.id)?.resolve(message.envelope);
      waiting.delete(message.id);
    }
  });
  // Electron's windows end with its main process. This one stays, and shows that nothing is behind it any more.
  socket.addEventListener("close", () => {
    ended(GONE);
    for (const { reject } of waiting.values()) reject(new Error(GONE));
    waiting.clear();
    tell({ type: "disconnected", problem: { code: "unavailable", message: GONE } });
  });
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener("open", () => {
      resolve();
    });
    socket.addEventListener("error", () => {
      reject(new Error(GONE));
    });
  });
  const ask = (kind: "command" | "query", request: unknown): Promise<Envelope> =>
    new Promise((resolve, reject) => {
      if (socket.readyState !== WebSocket.OPEN) {
        // It cannot be otherwise later: nothing is tried again.
        resolve({ ok: false, error: { code: "unavailable", message: GONE, fault: "daemon", retryable: false } });
        return;
      }
      latestId += 1;
      waiting.set(latestId, { resolve, reject });
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
