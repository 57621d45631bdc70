/** What tests share: stores of this repository's daemon, and windows without Electron. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MessageInput, StoreEvent } from "backscroll/language";
import { type DesktopStore, openStore, type Session, type SessionOptions, type StoreOptions } from "../src/index.js";
import { bridgeStore } from "../src/renderer.js";

/** The command that starts daemons: the environment variable BACKSCROLL, or what is on the PATH. */
export const BACKSCROLL = process.env["BACKSCROLL"] ?? "backscroll";

export function temporaryDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "backscroll-desktop-"));
  t.after(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

/** A store in an empty directory; its daemon ends with the test. */
export async function openTestStore(
  t: TestContext,
  options: Partial<StoreOptions> = {},
): Promise<{ store: DesktopStore; dataDir: string }> {
  let close = (): Promise<void> => Promise.resolve();
  t.after(() => close()); // before the directory is removed
  const dataDir = options.dataDir ?? temporaryDirectory(t);
  // Long enough for a daemon that is started again on a busy machine.
  const store = await openStore({ command: [BACKSCROLL], timeoutMs: 30_000, ...options, dataDir });
  close = async () => {
    await store.close();
    await killDaemon(dataDir);
  };
  return { store, dataDir };
}

/** The process that serves a directory, as its `endpoint.json` says. */
export function daemonPid(dataDir: string): number {
  return (JSON.parse(readFileSync(join(dataDir, "endpoint.json"), "utf8")) as { pid: number }).pid;
}

/** Kill the daemon of a directory, and wait until it is gone. */
export async function killDaemon(dataDir: string): Promise<void> {
  const pid = daemonPid(dataDir);
  if (!isRunning(pid)) return;
  process.kill(pid, "SIGKILL");
  await waitUntil(() => !isRunning(pid));
}

export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** A window without Electron: its session, the store behind the session, and what it was sent. */
export interface TestWindow {
  session: Session;
  page: ReturnType<typeof bridgeStore>;
  events: StoreEvent[];
}

/** A window whose bridge clones what crosses it, as Electron does. */
export function openWindow(store: DesktopStore, options: Partial<SessionOptions> = {}): TestWindow {
  const events: StoreEvent[] = [];
  const listeners = new Set<(event: StoreEvent) => void>();
  const session = store.session({
    send: (event) => {
      const received = structuredClone(event);
      events.push(received);
      for (const listener of listeners) listener(received);
    },
    ...options,
  });
  const page = bridgeStore({
    command: async (request) => structuredClone(await session.answer("command", structuredClone(request))),
    query: async (request) => structuredClone(await session.answer("query", structuredClone(request))),
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  });
  return { session, page, events };
}

export async function waitUntil(condition: () => boolean | Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    assert(performance.now() < deadline, `waited ${String(timeoutMs)} ms for ${condition.toString()}`);
    await sleep(5);
  }
}

export function messageOf(number: number, content = String(number)): MessageInput {
  return { id: `m${String(number)}`, roomId: "r1", senderId: "ada", content, timestamp: 1_767_225_600_000 + number };
}

/** The ids of the items that changed, in the order of the events. */
export function changedIds(events: readonly StoreEvent[]): (string | undefined)[] {
  return events.flatMap((event) => (event.type === "changed" ? event.changes.map(({ id }) => id) : []));
}
