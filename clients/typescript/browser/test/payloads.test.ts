/** What callers may give as a payload, and that nothing of it is shared with what is stored. */

import assert from "node:assert/strict";
import type { StoreRequest } from "backscroll/language";
import type { BrowserStore } from "../src/index.js";
import { type Call, call, daemon, messageOf, newScope, opened, outcome, test } from "./support.js";

const save = (store: BrowserStore, metadata: unknown): Promise<unknown> =>
  store.command({ type: "save-message", payload: { message: { ...messageOf(1), metadata: metadata as never } } });

async function saved(store: BrowserStore): Promise<Record<string, unknown> | undefined> {
  return (await store.query({ type: "get-message-by-id", payload: { messageId: "m1" } }))?.metadata;
}

test("names of objects are names in free JSON", async (t) => {
  const store = await opened(t);
  const text = '{"__proto__":{"isAdmin":true},"constructor":1,"toString":[{"__proto__":null}],"hasOwnProperty":{"":0}}';
  await save(store, JSON.parse(text));
  assert.equal(JSON.stringify(await saved(store)), text);
  assert.equal(({} as Record<string, unknown>)["isAdmin"], undefined);
  const updates = JSON.parse(`{"metadata":${text}}`) as object;
  await store.command({ type: "update-message", payload: { messageId: "m1", updates } });
  assert.equal(JSON.stringify(await saved(store)), text);
  const { changes } = await store.query({ type: "get-changes", payload: {} });
  assert(JSON.stringify(changes).includes(text));
});

test("names of objects are no fields", async (t) => {
  const [client, store] = await Promise.all([daemon(t), opened(t)]);
  for (const name of ["__proto__", "constructor", "toString"]) {
    const fields = `{"id":"m1","roomId":"r1","content":"","timestamp":1,"${name}":{}}`;
    for (const text of [`{"message":${fields}}`, `{"${name}":1}`]) {
      const payload = JSON.parse(text) as never;
      const expected = await outcome(async () => (await client.answer("save-message", payload)).result);
      assert.deepEqual(await outcome(() => call(store, "save-message", payload)), expected);
    }
  }
});

test("proxies, instances and frozen objects are their fields", async (t) => {
  const store = await opened(t);
  class Draft {
    text = "hello";
    readonly #secret = 1;
    unset = undefined;
    get length(): number {
      return this.text.length + this.#secret;
    }
    toJSON(): string {
      return "not asked";
    }
  }
  const metadata = {
    proxy: new Proxy({ list: new Proxy([1], {}) }, {}),
    draft: new Draft(),
    frozen: Object.freeze({}),
  };
  await save(store, new Proxy(metadata, {}));
  assert.deepEqual(await saved(store), { proxy: { list: [1] }, draft: { text: "hello" }, frozen: {} });
});

test("what JSON would change is refused where it is", async (t) => {
  const store = await opened(t);
  const metadata = "$.payload.message.metadata";
  const circular: Record<string, unknown> = {};
  circular["self"] = circular;
  const cases: [unknown, string | undefined][] = [
    [{ format: () => 1 }, `${metadata}.format`],
    [{ at: new Date() }, `${metadata}.at`],
    [{ tags: new Set(["a"]) }, `${metadata}.tags`],
    [{ size: 1n }, `${metadata}.size`],
    [{ list: [1, undefined] }, `${metadata}.list[1]`],
    [{ list: new Array(3) }, `${metadata}.list[0]`],
    [{ ratio: NaN }, `${metadata}.ratio`],
    [{ bytes: new Uint8Array(2) }, `${metadata}.bytes`],
    [{ name: Symbol("x") }, `${metadata}.name`],
    [circular, `${metadata}${".self".repeat(47)}`],
  ];
  for (const [value, path] of cases) {
    assert.deepEqual(await outcome(() => save(store, value)), { code: "invalid", path });
  }
  assert.equal(await saved(store), undefined);
});

test("numbers and fields are as JSON has them", async (t) => {
  const store = await opened(t);
  await save(store, { zero: -0, whole: 5.0, no: undefined, list: [1e300] });
  assert.deepEqual(await saved(store), { zero: 0, whole: 5, list: [1e300] });
});

test("a payload that is nested or repeated without end", async (t) => {
  const store = await opened(t);
  let deep: unknown = "half \ud83d";
  for (let level = 0; level < 100_000; level++) deep = [deep];
  let wide: unknown = "x";
  for (let level = 0; level < 40; level++) wide = [wide, wide];
  const ofDeep = (await outcome(() => save(store, { deep }))) as { code: string };
  assert.equal(ofDeep.code, "invalid");
  assert.deepEqual(await outcome(() => save(store, { wide })), { code: "too-large", path: undefined });
});

test("what is no request is refused", async (t) => {
  const store = await opened(t);
  const cases: [unknown, string][] = [
    [undefined, "$"],
    [null, "$"],
    ["get-all-rooms", "$"],
    [{ type: 5, payload: {} }, "$.type"],
    [{ type: "get-all-rooms" }, "$.payload"],
    [{ type: "get-all-rooms", payload: [] }, "$.payload"],
    [{ type: "get-all-rooms", payload: "{}" }, "$.payload"],
    [{ type: "get-all-rooms", payload: {}, scope: "bob" }, "$.scope"],
  ];
  for (const [request, path] of cases) {
    const ask = (): Promise<unknown> => store.query(request as StoreRequest<"get-all-rooms">);
    assert.deepEqual(await outcome(ask), { code: "invalid", path });
  }
});

test("a caller that changes a result changes nothing else", async (t) => {
  const scope = newScope();
  const store = await opened(t, scope);
  await save(store, { list: [1] });
  const calls: Call[] = [
    ["get-message-by-id", { messageId: "m1" }],
    ["get-messages", { roomId: "r1" }],
    ["get-message-page", { roomId: "r1" }],
    ["get-changes", {}],
  ];
  for (const [type, payload] of calls) {
    const [one, other] = await Promise.all([call(store, type, payload as never), call(store, type, payload as never)]);
    const before = JSON.stringify(other);
    spoil(one);
    assert.equal(JSON.stringify(other), before);
    assert.equal(JSON.stringify(await call(store, type, payload as never)), before);
  }
});

function spoil(value: unknown): void {
  if (typeof value !== "object" || value === null) return;
  for (const name of Object.keys(value)) {
    spoil((value as Record<string, unknown>)[name]);
    Reflect.set(value, name, "spoilt");
  }
}
