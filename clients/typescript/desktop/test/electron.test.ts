/**
 * The adapter for Electron, with the preload as it is packed. In the place of Electron stand `ipcMain`, `webContents`
 * and `ipcRenderer` over a MessageChannel, which clones what crosses it, and a context bridge that clones too.
 */

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { MessageChannel, type MessagePort } from "node:worker_threads";
import type { OperationName, Store, StoreEvent } from "backscroll/language";
import {
  type AdmitOptions,
  type Envelope,
  type ExposedStore,
  exposeStore,
  type FrameLike,
  type InvokeEventLike,
} from "../src/index.js";
import type { ContextBridgeLike, IpcRendererLike } from "../src/preload.js";
import { type Bridge, bridgeStore } from "../src/renderer.js";
import { changedIds, killDaemon, messageOf, openTestStore, waitUntil } from "./support.js";

const PRELOAD = readFileSync(new URL("../../dist/preload.cjs", import.meta.url), "utf8");
const ORIGIN = "app://chat";

type Handler = (event: InvokeEventLike, ...values: unknown[]) => unknown;

class IpcMain {
  readonly handlers = new Map<string, Handler>();

  handle(channel: string, handler: Handler): void {
    assert(!this.handlers.has(channel), "Electron allows one handler a channel");
    this.handlers.set(channel, handler);
  }

  removeHandler(channel: string): void {
    this.handlers.delete(channel);
  }
}

/** A frame of a window, and what is in it. */
interface Page {
  frame: FrameLike;
  /** The main process's end. */
  port: MessagePort;
  exposed: Map<string, unknown>;
  ipcRenderer: IpcRendererLike;
  bridge: Bridge;
  store: Store;
  events: StoreEvent[];
}

/** A window of Electron: its `webContents`, and the pages that it loads. */
class Window extends EventEmitter {
  mainFrame: FrameLike = { origin: "null" };
  readonly sent: unknown[][] = [];
  readonly #ipcMain: IpcMain;
  readonly #t: TestContext;
  #page: Page | undefined;
  #isDestroyed = false;

  constructor(t: TestContext, ipcMain: IpcMain) {
    super();
    this.#t = t;
    this.#ipcMain = ipcMain;
  }

  isDestroyed(): boolean {
    return this.#isDestroyed;
  }

  send(channel: string, ...values: unknown[]): void {
    assert(!this.#isDestroyed, "Electron throws for a window that was destroyed");
    this.sent.push(values);
    this.#page?.port.postMessage({ channel, values });
  }

  destroy(): void {
    this.#isDestroyed = true;
    this.emit("destroyed");
  }

  /** Load a page: its preload runs, and the page before is gone. */
  load(origin = ORIGIN): Page {
    this.#page?.port.close();
    this.mainFrame = { origin };
    this.#page = this.openFrame(this.mainFrame);
    return this.#page;
  }

  /** Run the preload in a frame. */
  openFrame(frame: FrameLike | null): Page {
    const { port1: main, port2: renderer } = new MessageChannel();
    this.#t.after(() => {
      main.close();
    });
    const calls = new Map<number, [(result: unknown) => void, (error: Error) => void]>();
    const listeners = new EventEmitter();
    main.on("message", ({ call, channel, values }: { call: number; channel: string; values: unknown[] }) => {
      const handler = this.#ipcMain.handlers.get(channel);
      const answering = handler
        ? Promise.resolve(handler({ sender: this, senderFrame: frame }, ...values))
        : Promise.reject(new Error(`No handler registered for '${channel}'`));
      answering.then(
        (result) => {
          main.postMessage({ call, result });
        },
        (error: unknown) => {
          main.postMessage({ call, error: `Error invoking remote method '${channel}': ${String(error)}` });
        },
      );
    });
    renderer.on(
      "message",
      (message: { call?: number; channel: string; values: unknown[]; result: unknown; error?: string }) => {
        if (message.call === undefined) {
          listeners.emit(message.channel, { sender: "electron" }, ...message.values);
          return;
        }
        const [resolve, reject] = calls.get(message.call) ?? [];
        calls.delete(message.call);
        if (message.error === undefined) resolve?.(message.result);
        else reject?.(new Error(message.error));
      },
    );
    let count = 0;
    const ipcRenderer: IpcRendererLike = {
      // As in Electron, what cannot be cloned is a rejection.
      invoke: (channel, ...values) =>
        new Promise((resolve, reject) => {
          count += 1;
          renderer.postMessage({ call: count, channel, values });
          calls.set(count, [resolve, reject]);
        }),
      on: (channel, listener) => listeners.on(channel, listener),
    };
    const exposed = new Map<string, unknown>();
    const contextBridge: ContextBridgeLike = {
      exposeInMainWorld: (name, api) => {
        exposed.set(name, api);
      },
    };
    // A sandboxed preload can require nothing but Electron.
    const require = (name: string): unknown => {
      assert.equal(name, "electron");
      return { contextBridge, ipcRenderer };
    };
    // eslint-disable-next-line @typescript-eslint/no-implied-eval, @typescript-eslint/no-unsafe-call
    new Function("require", PRELOAD)(require);
    const bridge = exposed.get("backscroll") as Bridge;
    const events: StoreEvent[] = [];
    bridge.subscribe((event) => events.push(event));
    return { frame: this.mainFrame, port: main, exposed, ipcRenderer, bridge, store: bridgeStore(bridge), events };
  }
}

interface Application {
  ipcMain: IpcMain;
  exposed: ExposedStore;
  dataDir: string;
  open: (options?: AdmitOptions) => Window;
}

async function start(t: TestContext): Promise<Application> {
  const { store, dataDir } = await openTestStore(t);
  const ipcMain = new IpcMain();
  const exposed = exposeStore(ipcMain, store);
  const open = (options: AdmitOptions = {}): Window => {
    const window = new Window(t, ipcMain);
    exposed.admit(window, { origin: ORIGIN, ...options });
    return window;
  };
  return { ipcMain, exposed, dataDir, open };
}

async function save({ store }: Page, number: number): Promise<void> {
  await store.command({ type: "save-message", payload: { message: messageOf(number) } });
}

async function idsOf({ store }: Page): Promise<string[]> {
  const { messages } = await store.query({ type: "get-message-page", payload: { roomId: "r1" } });
  return messages.map(({ id }) => id);
}

void test("the page sees three functions, and nothing of Electron", async (t) => {
  const { open } = await start(t);
  const page = open().load();
  assert.deepEqual([...page.exposed.keys()], ["backscroll"]);
  assert.deepEqual(Object.keys(page.bridge).sort(), ["command", "query", "subscribe"]);
  const received: unknown[][] = [];
  const stop = page.bridge.subscribe((...values: unknown[]) => received.push(values));
  await page.store.switchScope("ada");
  await save(page, 1);
  await waitUntil(() => received.length > 0);
  assert(received.every((values) => values.length === 1));
  stop();
  const count = received.length;
  await save(page, 2);
  await waitUntil(() => changedIds(page.events).includes("m2"));
  assert.equal(received.length, count);
});

void test("two windows of an account follow, and others do not", async (t) => {
  const { open } = await start(t);
  const [one, two, bo] = [open().load(), open().load(), open().load()];
  await Promise.all([one.store.switchScope("ada"), two.store.switchScope("ada"), bo.store.switchScope("bo")]);
  await save(one, 1);
  await save(bo, 2);
  await waitUntil(() => [one, two].every(({ events }) => changedIds(events).includes("m1")));
  await waitUntil(() => changedIds(bo.events).includes("m2"));
  assert.deepEqual([await idsOf(two), await idsOf(bo)], [["m1"], ["m2"]]);
  assert(!changedIds([...one.events, ...two.events]).includes("m2") && !changedIds(bo.events).includes("m1"));
});

void test("windows that are not admitted are refused", async (t) => {
  const { ipcMain } = await start(t);
  const { store } = new Window(t, ipcMain).load();
  await assert.rejects(store.switchScope("ada"), { code: "forbidden", message: /not admitted/ });
});

void test("frames in a window are refused", async (t) => {
  const { open } = await start(t);
  const window = open();
  await window.load().store.switchScope("ada");
  for (const frame of [{ origin: ORIGIN }, { origin: "https://other.example" }, null]) {
    const { store } = window.openFrame(frame);
    await assert.rejects(store.query({ type: "get-all-rooms", payload: {} }), {
      code: "forbidden",
      message: /main frame/,
    });
  }
});

void test("after navigation to another origin all is refused", async (t) => {
  const { open } = await start(t);
  const [window, other] = [open(), open().load()];
  await other.store.switchScope("ada");
  await window.load().store.switchScope("ada");
  for (const origin of ["https://other.example", "null", "", "app://chat.example", "app"]) {
    const page = window.load(origin);
    await assert.rejects(page.store.switchScope("ada"), { code: "forbidden", message: /pages of app:\/\/chat/ });
    const sent = window.sent.length;
    await save(other, 1);
    await waitUntil(() => changedIds(other.events).length > 0);
    other.events.length = 0;
    assert.deepEqual([window.sent.length, page.events], [sent, []]);
  }
  await window.load().store.switchScope("ada");
});

void test("a window that left its origin is sent nothing", async (t) => {
  const { open } = await start(t);
  const [window, other] = [open(), open().load()];
  await other.store.switchScope("ada");
  await window.load().store.switchScope("ada");
  window.mainFrame = { origin: "https://other.example" }; // which has not said hello yet
  await save(other, 1);
  await waitUntil(() => changedIds(other.events).includes("m1"));
  assert.deepEqual(window.sent, []);
});

void test("a frame that is gone is refused", async (t) => {
  const { open } = await start(t);
  const window = open();
  const page = window.load();
  await page.store.switchScope("ada");
  Object.defineProperty(page.frame, "origin", {
    get: () => {
      throw new Error("Render frame was disposed before WebFrameMain could be accessed");
    },
  });
  await assert.rejects(page.store.switchScope("ada"), { code: "forbidden" });
});

void test("a page that was loaded again has no account open", async (t) => {
  const { open } = await start(t);
  const [window, other] = [open(), open().load()];
  await window.load().store.switchScope("ada");
  await other.store.switchScope("ada");
  const page = window.load();
  await assert.rejects(save(page, 1), { code: "forbidden", message: /switch-scope/ });
  await save(other, 2);
  await waitUntil(() => changedIds(other.events).includes("m2"));
  assert.deepEqual(page.events, []);
  await page.store.switchScope("ada");
  assert.deepEqual(await idsOf(page), ["m2"]);
});

void test("what was under way when a page was left takes effect", async (t) => {
  const { open } = await start(t);
  const window = open();
  const page = window.load();
  await page.store.switchScope("ada");
  const saving = page.ipcRenderer.invoke("unknown").catch(() => undefined);
  void save(page, 1).catch(() => undefined);
  await saving; // the messages before it have arrived
  const next = window.load();
  await next.store.switchScope("ada");
  await waitUntil(async () => (await idsOf(next)).includes("m1"));
});

void test("a switch does not wait for a page that is gone", async (t) => {
  const { open, ipcMain } = await start(t);
  const [window, other] = [open(), open().load()];
  const page = window.load();
  await page.store.switchScope("ada");
  await other.store.switchScope("ada");
  page.port.close(); // it takes nothing any more
  await save(other, 1);
  await waitUntil(() => window.sent.length === 1);
  const [id] = window.sent[0] ?? [];
  const request = { type: "switch-scope", payload: { scope: "bo" } };
  const event = { sender: window, senderFrame: window.mainFrame };
  let isDone = false;
  const handler = ipcMain.handlers.get("backscroll");
  void Promise.resolve(handler?.(event, id, "command", request)).then(() => (isDone = true));
  window.load();
  await waitUntil(() => isDone);
});

void test("pages that come and go are not without end", async (t) => {
  const { open, ipcMain } = await start(t);
  let allow: (allowed: boolean) => void = () => undefined;
  const allowed = new Promise<boolean>((resolve) => (allow = resolve));
  const window = open({ mayUse: () => allowed });
  window.load();
  const request = { type: "switch-scope", payload: { scope: "ada" } };
  const event = { sender: window, senderFrame: window.mainFrame };
  const switchPage = (page: string): Promise<Envelope> =>
    Promise.resolve(ipcMain.handlers.get("backscroll")?.(event, page, "command", request) as Promise<Envelope>);
  const answers = Array.from({ length: 30 }, (_, number) => switchPage(`page ${String(number)}`));
  const last = await answers.at(-1);
  assert(last?.ok === false);
  assert.equal(last.error.code, "busy");
  allow(true);
  await Promise.all(answers);
  await waitUntil(async () => (await switchPage("another page")).ok);
});

void test("a window that was destroyed is sent nothing", async (t) => {
  const { open, exposed } = await start(t);
  const [window, other] = [open(), open().load()];
  const page = window.load();
  await page.store.switchScope("ada");
  await other.store.switchScope("ada");
  window.destroy();
  await save(other, 1);
  await waitUntil(() => changedIds(other.events).includes("m1"));
  assert.deepEqual(window.sent, []);
  assert.equal(window.listenerCount("destroyed") + window.listenerCount("render-process-gone"), 0);
  exposed.close();
  await assert.rejects(save(other, 2), { code: "no-reply", message: /No handler registered/ });
});

void test("a window whose process is gone starts anew", async (t) => {
  const { open } = await start(t);
  const window = open();
  const page = window.load();
  await page.store.switchScope("ada");
  window.emit("render-process-gone");
  await assert.rejects(save(page, 1), { code: "forbidden", message: /switch-scope/ });
});

void test("each window has its operations and accounts", async (t) => {
  const { open, exposed } = await start(t);
  const window = open({ operations: ["get-all-rooms"], mayUse: (scope) => scope === "ada" });
  const page = window.load();
  await assert.rejects(page.store.switchScope("bo"), { code: "forbidden", details: { path: "$.payload.scope" } });
  await page.store.switchScope("ada");
  await assert.rejects(save(page, 1), { code: "forbidden", details: { path: "$.type" } });
  assert.deepEqual(await page.store.query({ type: "get-all-rooms", payload: {} }), []);
  exposed.admit(window, { origin: `${ORIGIN}/index.html?theme=dark`, mayUse: (scope) => scope === "bo" });
  await assert.rejects(page.store.switchScope("ada"), { code: "forbidden" });
  await page.store.switchScope("bo");
  await save(page, 1);
  assert.equal(window.listenerCount("destroyed"), 1);
});

void test("each page of a window has the same operations", async (t) => {
  const { open } = await start(t);
  const operations: OperationName[] = ["get-all-rooms"];
  for (const window of [open({ operations: operations.values() }), open({ operations })]) {
    operations.push("save-message"); // after the window was admitted
    for (let loaded = 0; loaded < 2; loaded += 1) {
      const page = window.load();
      await page.store.switchScope("ada");
      assert.deepEqual(await page.store.query({ type: "get-all-rooms", payload: {} }), []);
      await assert.rejects(save(page, 1), { code: "forbidden" });
    }
    operations.pop();
  }
});

void test("a window's origin must be known", async (t) => {
  const { ipcMain, exposed } = await start(t);
  const window = new Window(t, ipcMain);
  for (const options of [{}, { origin: "null" }, { origin: "" }]) {
    assert.throws(
      () => {
        exposed.admit(window, options);
      },
      { code: "invalid", message: /origin/ },
    );
  }
  const page = window.load("file://");
  exposed.admit(window);
  await page.store.switchScope("ada");
  exposed.admit(window, { origin: "file:///opt/chat/index.html" });
  await page.store.switchScope("ada");
  assert.throws(
    () => {
      exposed.admit(window, { operations: ["create-token"] });
    },
    { code: "invalid" },
  );
});

void test("messages that no preload sends are refused", async (t) => {
  const { open } = await start(t);
  const page = open().load();
  await page.store.switchScope("ada");
  const request = { type: "get-all-rooms", payload: {} };
  for (const values of [
    [],
    [1, "query", request],
    [{}, "query", request],
    ["x".repeat(101), "query", request],
    ["page", "toString", request],
    ["page", "constructor", request],
    ["page", new Map(), request],
    ["page", undefined, request],
    ["page", "query"],
    ["page", "query", null],
    ["page", "query", new Map([["type", "get-all-rooms"]])],
  ]) {
    const envelope = (await page.ipcRenderer.invoke("backscroll", ...values)) as { error?: { code: string } };
    assert.equal(envelope.error?.code, "invalid");
  }
});

void test("payloads that cannot cross are refused, and named", async (t) => {
  const { open } = await start(t);
  const page = open().load();
  await page.store.switchScope("ada");
  const cyclic: Record<string, unknown> = {};
  cyclic["self"] = cyclic;
  class Broken {
    readonly greet = (): string => "hello";
  }
  for (const [metadata, path] of [
    [{ format: () => 1 }, "$.payload.message.metadata.format"],
    [{ at: new Date() }, "$.payload.message.metadata.at"],
    [{ tags: new Set(["a"]) }, "$.payload.message.metadata.tags"],
    [{ size: 1n }, "$.payload.message.metadata.size"],
    [new Broken(), "$.payload.message.metadata.greet"],
  ] as const) {
    const message = { ...messageOf(1), metadata: metadata as Record<string, unknown> };
    const request = { type: "save-message", payload: { message } } as const;
    await assert.rejects(page.store.command(request), { name: "InvalidError", code: "invalid", details: { path } });
    // Without the check of the renderer too, there is an answer.
    const [outcome] = await Promise.allSettled([page.bridge.command(request)]);
    if (outcome.status === "rejected") assert.match(String(outcome.reason), /could not be cloned/);
    else assert.deepEqual((outcome.value as { error: { code: string } }).error.code, "invalid");
  }
  const message = { ...messageOf(1), metadata: cyclic };
  await assert.rejects(page.store.command({ type: "save-message", payload: { message } }), { code: "invalid" });
});

void test("errors of the daemon arrive as their classes", async (t) => {
  const { open } = await start(t);
  const { store } = open().load();
  await store.switchScope("ada");
  const message = { ...messageOf(1), timestamp: -1 };
  await assert.rejects(store.command({ type: "save-message", payload: { message } }), {
    name: "InvalidError",
    retryable: false,
    details: { path: "$.payload.message.timestamp" },
  });
  const updates = { content: "x" };
  await assert.rejects(store.command({ type: "update-message", payload: { messageId: "none", updates } }), {
    name: "NotFoundError",
    fault: "caller",
  });
});

void test("pages learn that the daemon went, and came back", async (t) => {
  const { open, dataDir } = await start(t);
  const page = open().load();
  await page.store.switchScope("ada");
  await killDaemon(dataDir);
  const saving = save(page, 1);
  await waitUntil(() => page.events.some(({ type }) => type === "disconnected"));
  await waitUntil(() => page.events.some(({ type }) => type === "connected"));
  await saving;
  assert.deepEqual(await idsOf(page), ["m1"]);
});

void test("a listener that throws keeps nothing from others", async (t) => {
  const { open } = await start(t);
  const page = open().load();
  const thrown: Error[] = [];
  process.setUncaughtExceptionCaptureCallback((error) => thrown.push(error));
  t.after(() => {
    process.setUncaughtExceptionCaptureCallback(null);
  });
  const failure = new Error("of the application");
  page.bridge.subscribe(() => {
    throw failure;
  });
  const received: StoreEvent[] = [];
  page.bridge.subscribe((event) => received.push(event));
  await page.store.switchScope("ada");
  await save(page, 1);
  await waitUntil(() => changedIds(received).includes("m1"));
  assert.equal(thrown[0], failure);
});
