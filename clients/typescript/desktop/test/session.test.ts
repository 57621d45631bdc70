/** Sessions of windows, on real daemons: accounts, changes, and what is refused. */

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { LIMITS, OPERATIONS, type OperationName, type StoreEvent } from "backscroll/language";
import { type Envelope, DEFAULT_OPERATIONS, type DesktopStore, type Session } from "../src/index.js";
import { changedIds, messageOf, openTestStore, openWindow, type TestWindow, waitUntil } from "./support.js";

const PAGE = { type: "get-message-page", payload: { roomId: "r1" } } as const;

async function save(window: TestWindow, number: number, content?: string): Promise<void> {
  await window.page.command({ type: "save-message", payload: { message: messageOf(number, content) } });
}

async function idsOf(window: TestWindow): Promise<string[]> {
  return (await window.page.query(PAGE)).messages.map(({ id }) => id);
}

/** The code and the path of a refused request. */
function refusalOf(envelope: Envelope): [string, unknown] {
  assert(!envelope.ok, "it was not refused");
  return [envelope.error.code, envelope.error.details?.["path"]];
}

async function sessionOf(
  t: TestContext,
  operations: readonly OperationName[] = DEFAULT_OPERATIONS,
): Promise<{ store: DesktopStore; session: Session }> {
  const { store } = await openTestStore(t);
  const session = store.session({ send: () => undefined, operations });
  const opened = await session.answer("command", { type: "switch-scope", payload: { scope: "ada" } });
  assert.deepEqual(opened, { ok: true, result: null });
  return { store, session };
}

void test("two windows of one account follow one another", async (t) => {
  const { store } = await openTestStore(t);
  const [one, other] = [openWindow(store), openWindow(store)];
  await one.page.switchScope("ada");
  await other.page.switchScope("ada");
  await save(one, 1);
  await waitUntil(() => [one, other].every(({ events }) => changedIds(events).includes("m1")));
  assert.deepEqual(await idsOf(other), ["m1"]);
});

void test("windows of two accounts see nothing of each other", async (t) => {
  const { store } = await openTestStore(t);
  const [ada, bo] = [openWindow(store), openWindow(store)];
  await ada.page.switchScope("ada");
  await bo.page.switchScope("bo");
  await save(ada, 1);
  await save(bo, 2);
  await waitUntil(() => ada.events.length > 0 && bo.events.length > 0);
  assert.deepEqual([await idsOf(ada), await idsOf(bo)], [["m1"], ["m2"]]);
  assert.deepEqual([...new Set(changedIds(ada.events))].includes("m2"), false);
  assert.deepEqual([...new Set(changedIds(bo.events))].includes("m1"), false);
});

void test("every query after a switch is newer than its changes", async (t) => {
  const { store } = await openTestStore(t);
  const [writer, reader] = [openWindow(store), openWindow(store)];
  await writer.page.switchScope("ada");
  const stopping = new AbortController();
  const writing = (async () => {
    for (let number = 0; !stopping.signal.aborted; number += 1) await save(writer, number);
  })();
  for (const scope of ["ada", "bo", "ada", "ada", "bo", "ada"]) {
    await reader.page.switchScope(scope);
    reader.events.length = 0;
    if (scope === "bo") continue;
    const seen = new Set(
      (await reader.page.query({ ...PAGE, payload: { roomId: "r1", limit: 500 } })).messages.map(({ id }) => id),
    );
    const newest = seen.size;
    await waitUntil(() => changedIds(reader.events).includes(`m${String(newest + 3)}`));
    const missed = [newest, newest + 1, newest + 2].filter(
      (number) => !seen.has(`m${String(number)}`) && !changedIds(reader.events).includes(`m${String(number)}`),
    );
    assert.deepEqual(missed, []);
  }
  stopping.abort();
  await writing;
});

void test("after a switch nothing of the old account arrives", async (t) => {
  const { store } = await openTestStore(t);
  const [window, other] = [openWindow(store), openWindow(store)];
  await other.page.switchScope("ada");
  await window.page.switchScope("ada");
  const settled: string[] = [];
  const note = (name: string) => (outcome: unknown) => {
    settled.push(`${name}: ${outcome instanceof Error ? outcome.name : "ok"}`);
  };
  const requests = [
    save(window, 1).then(note("save"), note("save")),
    window.page
      .query({ type: "get-changes", payload: { after: "now", waitMs: 60_000 } })
      .then(note("query"), note("query")),
    window.page.switchScope("bo").then(note("switch"), note("switch")),
    save(window, 2).then(note("save in bo"), note("save in bo")),
  ];
  await Promise.all(requests);
  assert.deepEqual([...settled].sort(), ["query: NoReplyError", "save in bo: ok", "save: ok", "switch: ok"]);
  assert(settled.indexOf("save: ok") < settled.indexOf("switch: ok"));
  window.events.length = 0;
  await save(other, 3);
  await waitUntil(() => changedIds(other.events).includes("m3"));
  await save(window, 4);
  await waitUntil(() => changedIds(window.events).includes("m4"));
  assert.deepEqual(
    changedIds(window.events).filter((id) => id === "m1" || id === "m3"),
    [],
  );
  assert.deepEqual(
    [await idsOf(window), await idsOf(other)],
    [
      ["m2", "m4"],
      ["m1", "m3"],
    ],
  );
});

void test("an event on its way is taken before the switch is done", async (t) => {
  const { store } = await openTestStore(t);
  const sent: [StoreEvent, () => void][] = [];
  const { page } = openWindow(store, {
    send: (event) => new Promise((taken) => sent.push([event, taken])),
  });
  await page.switchScope("ada");
  await page.command({ type: "save-message", payload: { message: messageOf(1) } });
  await waitUntil(() => sent.length === 1);
  let isSwitched = false;
  const switching = page.switchScope("bo").then(() => (isSwitched = true));
  const other = openWindow(store);
  await other.page.switchScope("bo"); // in that time the other one could have been done
  assert.equal(isSwitched, false);
  sent[0]?.[1]();
  await switching;
});

void test("before and after a failed switch all is refused", async (t) => {
  const { store } = await openTestStore(t);
  const window = openWindow(store, { mayUse: (scope) => Promise.resolve(scope === "ada") });
  await assert.rejects(save(window, 1), { code: "forbidden", message: /switch-scope/ });
  await assert.rejects(window.page.switchScope("bo"), { code: "forbidden", details: { path: "$.payload.scope" } });
  await window.page.switchScope("ada");
  await save(window, 1);
  const [failed, after] = await Promise.allSettled([window.page.switchScope("bo"), save(window, 2)]);
  assert.deepEqual([failed.status, after.status], ["rejected", "rejected"]);
  await assert.rejects(idsOf(window), { code: "forbidden", message: /switch-scope/ });
  await window.page.switchScope("ada");
  assert.deepEqual(await idsOf(window), ["m1"]);
});

void test("a check of the application that fails opens nothing", async (t) => {
  const problems: unknown[] = [];
  const { store } = await openTestStore(t, { onProblem: (problem) => problems.push(problem) });
  const failure = new Error("secret");
  const { page } = openWindow(store, {
    mayUse: () => {
      throw failure;
    },
  });
  await assert.rejects(page.switchScope("ada"), { code: "internal", message: /^(?!.*secret)/ });
  await waitUntil(() => problems.length > 0);
  assert.deepEqual(problems, [failure]);
});

void test("the default operations are those on an account's data", () => {
  const rights = new Set(DEFAULT_OPERATIONS.map((name) => OPERATIONS[name].right));
  assert.deepEqual([...rights].sort(), ["admin", "read", "write"]);
  assert.deepEqual(
    DEFAULT_OPERATIONS.filter((name) => OPERATIONS[name].right === "admin"),
    ["clear-all-data"],
  );
});

void test("what a window may not call is refused", async (t) => {
  const { session } = await sessionOf(t, ["get-room", "save-room", "batch"]);
  const room = { roomId: "r1" };
  const commands = (...types: unknown[]): object => ({ commands: types.map((type) => ({ type, payload: room })) });
  for (const [kind, type, payload, code, path = "$.type"] of [
    ["command", "get-room", room, "invalid"],
    ["query", "save-room", room, "invalid"],
    ["query", "switch-scope", { scope: "bo" }, "invalid"],
    ["query", "get-message-page", room, "forbidden"],
    ["query", "get-log", {}, "forbidden"],
    ["command", "append-log", {}, "forbidden"],
    ["command", "create-token", {}, "forbidden"],
    ["query", "list-scopes", {}, "forbidden"],
    ["query", "health", {}, "forbidden"],
    ["command", "drop-tables", {}, "unknown-operation"],
    ["command", "constructor", {}, "unknown-operation"],
    ["command", "__proto__", {}, "unknown-operation"],
    ["command", "batch", commands("save-room", "clear-all-data"), "forbidden", "$.payload.commands[1].type"],
    ["command", "batch", commands("get-room"), "invalid", "$.payload.commands[0].type"],
    ["command", "batch", commands("batch", "nothing"), "unknown-operation", "$.payload.commands[1].type"],
  ] as const) {
    assert.deepEqual(refusalOf(await session.answer(kind, { type, payload })), [code, path], `${kind} ${type}`);
  }
  assert.deepEqual(await session.answer("query", { type: "get-room", payload: room }), { ok: true, result: null });
});

void test("a batch is checked as it is sent", async (t) => {
  const { session } = await sessionOf(t, ["batch", "save-user", "get-room"]);
  const payload = { room: { id: "r1", name: "Home" } };
  const types = ["save-user", "save-room", "save-room"];
  const command = {
    payload,
    get type() {
      return types.shift();
    },
  };
  await session.answer("command", { type: "batch", payload: { commands: [command] } });
  const stored = await session.answer("query", { type: "get-room", payload: { roomId: "r1" } });
  assert.deepEqual(stored, { ok: true, result: null });
});

void test("only commands and queries can be allowed", async (t) => {
  const { store } = await openTestStore(t);
  for (const name of ["create-token", "health"] as const) {
    assert.throws(() => store.session({ send: () => undefined, operations: [name] }), { code: "invalid" });
  }
});

void test("a request has exactly a type and a payload", async (t) => {
  const { session } = await sessionOf(t);
  const type = "get-room";
  const payload = { roomId: "r1" };
  for (const [request, path] of [
    [undefined, "$"],
    [null, "$"],
    ["get-room", "$"],
    [[type, payload], "$"],
    [new Map([["type", type]]), "$"],
    [{}, "$.type"],
    [{ type }, "$.payload"],
    [{ payload }, "$.type"],
    [{ type: 1, payload }, "$.type"],
    [{ type, payload: null }, "$.payload"],
    [{ type, payload: [payload] }, "$.payload"],
    [{ type, payload: new Date(0) }, "$.payload"],
    [{ type, payload, scope: "bo" }, "$.scope"],
    [{ type, payload, token: "t" }, "$.token"],
    [{ type, payload, id: "x" }, "$.id"],
    [Object.assign(Object.create(null) as object, { type, payload, ["__proto__"]: {} }), "$.__proto__"],
    [{ type: "switch-scope", payload: {} }, "$.payload.scope"],
    [{ type: "switch-scope", payload: { scope: "" } }, "$.payload.scope"],
    [{ type: "switch-scope", payload: { scope: 1 } }, "$.payload.scope"],
    [{ type: "switch-scope", payload: { scope: "\ud800" } }, "$.payload.scope"],
    [{ type: "switch-scope", payload: { scope: "ä".repeat(65) } }, "$.payload.scope"],
    [{ type: "switch-scope", payload: { scope: "bo", token: "t" } }, "$.payload.token"],
  ] as const) {
    const [code, where] = refusalOf(await session.answer("command", request));
    assert.deepEqual([code, where], ["invalid", path]);
  }
});

void test("strange payloads are refused, and name the field", async (t) => {
  const { session } = await sessionOf(t);
  const cyclic: Record<string, unknown> = {};
  cyclic["self"] = cyclic;
  let bomb: unknown[] = ["boom"];
  for (let level = 0; level < 30; level += 1) bomb = [bomb, bomb, bomb, bomb];
  const deep = JSON.parse(`${"[".repeat(5_000)}${"]".repeat(5_000)}`) as unknown;
  for (const [metadata, code] of [
    [new Map([["a", 1]]), "invalid"],
    [new Set([1]), "invalid"],
    [new Date(0), "invalid"],
    [/x/, "invalid"],
    [new Error("x"), "invalid"],
    [new ArrayBuffer(8), "invalid"],
    [Uint8Array.of(1), "invalid"],
    [new Float64Array(1), "invalid"],
    [10n, "invalid"],
    [Object(10n), "invalid"],
    [() => 1, "invalid"],
    [Symbol("x"), "invalid"],
    [NaN, "invalid"],
    [Infinity, "invalid"],
    [2 ** 60, "invalid"],
    [[undefined], "invalid"],
    [new Array(3), "invalid"],
    [cyclic, "invalid"],
    [deep, "invalid"],
    [new Array(2 ** 32 - 1).fill(0, 0, 0), "invalid"],
    [bomb, "too-large"],
    ["x".repeat(LIMITS.bodyBytes + 1), "too-large"],
    [new Array(4_000_000).fill(0), "too-large"],
  ] as const) {
    const request = { type: "save-message", payload: { message: { ...messageOf(1), metadata: [metadata] } } };
    const [actual, path] = refusalOf(await session.answer("command", request));
    assert.equal(actual, code);
    if (code === "invalid") assert.match(String(path), /^\$\.payload\.message\.metadata\[0\]/);
  }
});

void test("what clones as plain data is taken", async (t) => {
  const { store, session } = await sessionOf(t);
  class Room {
    readonly id = "r1";
    readonly name = "Home";
    readonly topic = undefined;
    readonly hostId = "ada";
    readonly createdAt = 1;
    greet(): string {
      return this.name;
    }
  }
  const room: object = structuredClone(new Room());
  const saved = await session.answer("command", { type: "save-room", payload: { room } });
  assert.deepEqual(saved, { ok: true, result: null });
  const reactive = new Proxy({ id: "r2", name: "Away", hostId: "ada", createdAt: 1 }, {});
  const window = openWindow(store);
  await window.page.switchScope("ada");
  await window.page.command({ type: "save-room", payload: { room: new Proxy(reactive, {}) } });
  assert.equal((await window.page.query({ type: "get-room", payload: { roomId: "r2" } }))?.name, "Away");
  const data = Uint8Array.of(1, 2, 3);
  const put = await session.answer("command", { type: "put-media-part", payload: { data } });
  assert.equal(put.ok, true);
});

void test("too many requests without an answer are refused", async (t) => {
  const { store } = await openTestStore(t);
  let open: (allowed: boolean) => void = () => undefined;
  const session = store.session({ send: () => undefined, mayUse: () => new Promise((resolve) => (open = resolve)) });
  const switching = session.answer("command", { type: "switch-scope", payload: { scope: "ada" } });
  const message = messageOf(1, "x".repeat(LIMITS.textBytes));
  const answers = Array.from({ length: 100 }, () =>
    session.answer("command", { type: "save-message", payload: { message } }),
  );
  const refused = await Promise.race(answers);
  assert(!refused.ok);
  assert.deepEqual([refused.error.code, refused.error.retryable], ["busy", true]);
  await waitUntil(() => {
    open(true);
    return open.length > 0;
  });
  assert.equal((await switching).ok, true);
  const taken = (await Promise.all(answers)).filter(({ ok }) => ok).length;
  assert(taken > 50 && taken < 65, String(taken));
});

void test("many queries at once are no reason for a warning", async (t) => {
  const warnings: Error[] = [];
  const note = (warning: Error): unknown => warnings.push(warning);
  process.on("warning", note);
  t.after(() => process.off("warning", note));
  const window = openWindow((await openTestStore(t)).store);
  await window.page.switchScope("ada");
  await Promise.all(Array.from({ length: 50 }, () => idsOf(window)));
  assert.deepEqual(warnings, []);
});

void test("a window that takes no events costs no memory", async (t) => {
  const { store } = await openTestStore(t);
  const sent: StoreEvent[] = [];
  let take: () => void = () => undefined;
  const window = openWindow(store, {
    send: (event) => {
      sent.push(event);
      return new Promise((taken) => (take = taken));
    },
  });
  const other = openWindow(store);
  await window.page.switchScope("ada");
  await other.page.switchScope("ada");
  const numbers = Array.from({ length: 2_500 }, (_, number) => number);
  await Promise.all(numbers.map((number) => save(other, number)));
  await waitUntil(() => new Set(changedIds(other.events)).size === numbers.length);
  assert.equal(sent.length, 1);
  take();
  await waitUntil(() => sent.length === 2);
  assert.deepEqual(sent[1], { type: "gap" });
  take();
  await save(other, 9_999);
  await waitUntil(() => sent.length === 3);
  assert.deepEqual(changedIds(sent.slice(2)), ["m9999"]);
});

void test("an event that could not be sent is followed by a gap", async (t) => {
  const { store } = await openTestStore(t);
  const sent: StoreEvent[] = [];
  let isBroken = true;
  const window = openWindow(store, {
    send: (event) => {
      if (isBroken) throw new Error("the window shows another page");
      sent.push(event);
    },
  });
  const other = openWindow(store);
  await window.page.switchScope("ada");
  await other.page.switchScope("ada");
  await save(other, 1);
  await waitUntil(() => changedIds(other.events).includes("m1"));
  isBroken = false;
  await save(other, 2);
  await waitUntil(() => sent.some(({ type }) => type === "gap"));
});

void test("a session that ended answers and sends nothing", async (t) => {
  const { store } = await openTestStore(t);
  const [window, other] = [openWindow(store), openWindow(store)];
  await window.page.switchScope("ada");
  await other.page.switchScope("ada");
  const underWay = save(window, 1);
  await window.session.close();
  await underWay;
  await assert.rejects(save(window, 2), { code: "unavailable" });
  await assert.rejects(window.page.switchScope("ada"), { code: "unavailable" });
  const count = window.events.length;
  await save(other, 3);
  await waitUntil(() => changedIds(other.events).includes("m3"));
  assert.equal(window.events.length, count);
  assert.deepEqual(await idsOf(other), ["m1", "m3"]);
});

void test("switches at once end in the last account", async (t) => {
  const { store } = await openTestStore(t);
  const window = openWindow(store);
  const scopes = ["ada", "bo", "ada", "cy", "cy", "bo"];
  await Promise.all(scopes.flatMap((scope, index) => [window.page.switchScope(scope), save(window, index, scope)]));
  for (const [scope, ids] of [
    ["bo", ["m1", "m5"]],
    ["ada", ["m0", "m2"]],
    ["cy", ["m3", "m4"]],
  ] as const) {
    await window.page.switchScope(scope);
    assert.deepEqual(await idsOf(window), ids);
  }
});

void test("switches without end are refused", async (t) => {
  const { store } = await openTestStore(t);
  let refuse: (allowed: boolean) => void = () => undefined;
  const refused = new Promise<boolean>((resolve) => (refuse = resolve));
  const window = openWindow(store, { mayUse: () => refused });
  const switching = Array.from({ length: 2_000 }, async (): Promise<string> => {
    const envelope = await window.session.answer("command", { type: "switch-scope", payload: { scope: "ada" } });
    return envelope.ok ? "ok" : envelope.error.code;
  });
  refuse(false);
  const codes = await Promise.all(switching);
  assert.equal(codes.filter((code) => code === "forbidden").length, 1_024);
  assert.equal(codes.filter((code) => code === "busy").length, 2_000 - 1_024);
});

void test("the last session that leaves closes the client", async (t) => {
  const { store } = await openTestStore(t);
  const connections = (): number => process.getActiveResourcesInfo().filter((each) => each === "PipeWrap").length;
  const before = connections();
  const windows = [openWindow(store), openWindow(store)];
  for (const { page } of windows) await page.switchScope("ada");
  await waitUntil(() => connections() === before + 1);
  await windows[0]?.session.close();
  await save(windows[1] ?? openWindow(store), 1);
  assert.equal(connections(), before + 1);
  await windows[1]?.session.close();
  await waitUntil(() => connections() === before);
});
