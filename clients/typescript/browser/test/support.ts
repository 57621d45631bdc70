/** What tests share: stores on fake-indexeddb, and daemons to compare them with. */

import "fake-indexeddb/auto";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test as runTest } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type BrowserStore, type BrowserStoreOptions, openBrowserStore } from "../src/index.js";
import { Client } from "backscroll";
import {
  BackscrollError,
  type MessageInput,
  type OperationName,
  type Payloads,
  type StoreEvent,
} from "backscroll/language";

/** The command that starts daemons: the environment variable BACKSCROLL, or what is on the PATH. */
const BACKSCROLL = process.env["BACKSCROLL"] ?? "backscroll";

/** The longest time of a test, and of what is done after it, in milliseconds. */
const TEST_MS = 60_000;

/** Whether the long forms of tests run. */
export const IS_LONG = process.env["LONG"] !== undefined;

export const AT = 1_767_225_600_000;

/** A test that fails if it takes too long, in milliseconds, so that one that never ends is known by its name. */
export function test(name: string, act: (t: TestContext) => Promise<void>, timeout = TEST_MS): void {
  void runTest(name, { timeout }, act);
}

/** Do something at the end of a test, for which the time of the test does not count. */
export function atEnd(t: TestContext, act: () => unknown): void {
  t.after(act, { timeout: TEST_MS });
}

let scopes = 0;

/** A name that no other test has. */
export function newScope(): string {
  scopes += 1;
  return `scope-${String(scopes)}`;
}

/** A store with an open account, which is closed at the end of the test. */
export async function opened(t: TestContext, scope = newScope(), options?: BrowserStoreOptions): Promise<BrowserStore> {
  const store = openBrowserStore(options);
  atEnd(t, () => store.close());
  await store.switchScope(scope);
  return store;
}

/** The client of a daemon of its own. */
export async function daemon(t: TestContext): Promise<Client> {
  const dataDir = mkdtempSync(join(tmpdir(), "backscroll-browser-"));
  const words = ["serve", "--data-dir", dataDir, "--exit-with-parent"];
  const program = spawn(BACKSCROLL, words, { stdio: ["pipe", "pipe", "ignore"] });
  const exited = once(program, "exit");
  atEnd(t, async () => {
    program.kill("SIGKILL");
    await exited.catch(() => undefined); // a hook that fails leaves out the next ones, and a store that is open keeps Node alive
    rmSync(dataDir, { recursive: true, force: true });
  });
  const ended = exited.then(([code]) => assert.fail(`the daemon ended, with ${String(code)}`));
  await Promise.race([once(program.stdout, "data"), ended]);
  ended.catch(() => undefined); // at the end of the test
  const { endpoints } = JSON.parse(readFileSync(join(dataDir, "endpoint.json"), "utf8")) as { endpoints: string[] };
  const client = new Client({ endpoint: endpoints[0] });
  atEnd(t, () => {
    client.close();
  });
  return client;
}

/** A result, or the code and path of an error. */
export async function outcome(answer: () => Promise<unknown>): Promise<unknown> {
  try {
    return { result: await answer() };
  } catch (error) {
    if (!(error instanceof BackscrollError)) throw error;
    const { path, roomId } = error.details ?? {};
    return { code: error.code, path, ...(roomId !== undefined && { roomId }) };
  }
}

/** The events of a store from now on. */
export function eventsOf(store: BrowserStore): StoreEvent[] {
  const events: StoreEvent[] = [];
  store.subscribe((event) => events.push(event));
  return events;
}

export async function waitUntil(condition: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    assert(performance.now() < deadline, `waited ${String(timeoutMs)} ms for ${condition.toString()}`);
    await sleep(5);
  }
}

export type Call<Name extends OperationName = OperationName> = [type: Name, payload: Payloads[Name]];

/** Execute an operation on a store, whichever kind it is. */
export function call(store: BrowserStore, type: OperationName, payload: never): Promise<unknown> {
  return /^(get|is)-/.test(type) ? store.query({ type, payload }) : store.command({ type, payload });
}

export function messageOf(number: number, more: Partial<MessageInput> = {}): MessageInput {
  return { id: `m${String(number)}`, roomId: "r1", content: String(number), timestamp: AT + number, ...more };
}
