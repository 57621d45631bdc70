import assert from "node:assert/strict";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  Client,
  type ClientOptions,
  ConflictError,
  InvalidError,
  type MessageInput,
  NotFoundError,
  open,
  TooLargeError,
  UnavailableError,
} from "../src/index.js";
import { Daemon, FakeDaemon, LONG_MS, messageOf, ok, printed, temporaryDirectory } from "./support.js";

for (const [carrier, flags] of [
  ["ipc", []],
  ["tcp", ["--endpoint", "tcp://127.0.0.1:*"]],
] as const) {
  void test(`what is saved over ${carrier} is read back`, async (t) => {
    const { dataDir } = await Daemon.start(t, ...flags);
    const client = new Client({ dataDir });
    const message = {
      ...messageOf(1, "hello 👋 \u2028"),
      editedAt: 253_402_300_799_999,
      revision: 2 ** 53 - 1,
      metadata: { list: [1, 1.5, null, true], nested: { text: "é\0" } },
    };
    assert.equal(await client.saveMessage({ message }), null);
    const page = await client.getMessagePage({ roomId: "r1", limit: 50 });
    assert.deepEqual(page.messages, [{ ...message, isDeleted: false, reactions: [] }]);
    client.close();
  });
}

void test("null clears a field, and what is left out or undefined stays", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  await client.saveMessage({ message: { ...messageOf(1), senderName: "Ada", metadata: { a: 1 } } });
  await client.updateMessage({ messageId: "m1", updates: { senderName: null, content: "new" } });
  const unset: object = { messageId: "m1", updates: { metadata: undefined } }; // as less strict compilers allow it
  await client.call("update-message" as string, unset);
  const read = await client.getMessageById({ messageId: "m1" });
  assert.deepEqual([read?.senderName, read?.metadata, read?.content], [undefined, { a: 1 }, "new"]);
  assert.equal(await client.getMessageById({ messageId: "none" }), null);
  client.close();
});

void test("an error has the class of its code", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const missing = client.updateMessage({ messageId: "none", updates: { content: "x" } });
  await assert.rejects(
    missing,
    (error) => error instanceof NotFoundError && error.code === "not-found" && !error.retryable,
  );
  await client.saveMessage({ message: messageOf(1) });
  await client.deleteMessage({ messageId: "m1" });
  await assert.rejects(client.updateMessage({ messageId: "m1", updates: { content: "x" } }), ConflictError);
  const late = client.call("save-message", { message: { ...messageOf(2), timestamp: "late" } });
  await assert.rejects(
    late,
    (error) => error instanceof InvalidError && error.details?.["path"] === "$.payload.message.timestamp",
  );
  client.close();
});

void test("a batch says which of its commands fail", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const batch = client.batch({
    commands: [
      { type: "save-message", payload: { message: messageOf(1) } },
      { type: "delete-message", payload: { messageId: "none" } },
    ],
  });
  await assert.rejects(batch, (error) => {
    assert(error instanceof NotFoundError);
    assert.deepEqual(
      error.failures.map(({ index, code }) => [index, code]),
      [[1, "not-found"]],
    );
    return true;
  });
  assert.equal(await client.getMessageById({ messageId: "m1" }), null);
  client.close();
});

void test("the same command in another form is the same command", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const [first, second] = [new Client({ dataDir }), new Client({ dataDir })];
  const metadata = { b: [1, { d: 2, c: null }], a: "x", "10": 1, "9": 2 };
  const again = { "9": 2, "10": 1, a: "x", b: [1, { c: null, d: 2 }] };
  const message = messageOf(1);
  const saved = await first.answer("save-message", { message: { ...message, metadata } }, { requestId: "mine" });
  const forms: MessageInput[] = [
    { ...message, metadata: again },
    { metadata: again, ...message },
    { ...message, metadata, channelId: null },
    { ...message, metadata, isDeleted: false },
  ];
  for (const each of forms) {
    assert.deepEqual(await second.answer("save-message", { message: each }, { requestId: "mine" }), saved);
  }
  const others: MessageInput[] = [
    { ...message, metadata: { ...metadata, b: [1, { d: 2 }] } },
    { ...message, metadata: {} },
    { ...message, metadata: null },
  ];
  for (const each of others) {
    await assert.rejects(second.answer("save-message", { message: each }, { requestId: "mine" }), ConflictError);
  }
  first.close();
  second.close();
});

void test("numbers that may have lost digits are not sent", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request) => ok(request));
  const client = new Client({ endpoint: `ipc://${path}` });
  for (const value of [2 ** 53, -(2 ** 53), 2 ** 63, 1e20, NaN, -Infinity]) {
    const inside = client.saveMessage({ message: { ...messageOf(1), metadata: { list: [{ value }] } } });
    await assert.rejects(inside, (error) => {
      assert(error instanceof InvalidError);
      assert.equal(error.details?.["path"], "$.payload.message.metadata.list[0].value");
      return true;
    });
    const channel = { id: "c", name: "c", type: "text", position: value };
    await assert.rejects(client.saveChannel({ channel }), InvalidError);
  }
  assert.deepEqual(fake.bodies, []);
  const metadata = { most: 2 ** 53 - 1, least: 1 - 2 ** 53, float: 1e300, small: 5e-324, half: 0.5 };
  await client.saveMessage({ message: { ...messageOf(1), metadata } });
  assert.deepEqual((fake.requests[0]?.payload["message"] as MessageInput).metadata, metadata);
  client.close();
});

void test("a lone surrogate is refused wherever it is", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const lone = "cut \ud83d";
  const save = (fields: object): Promise<unknown> =>
    client.call("save-message", { message: { ...messageOf(1), ...fields } });
  const path = "$.payload.message";
  for (const [fields, where] of [
    [{ content: lone }, `${path}.content`],
    [{ id: lone }, `${path}.id`],
    [{ metadata: { a: lone } }, `${path}.metadata.a`],
    [{ metadata: { [lone]: 1 } }, `${path}.metadata`],
    [{ mentions: [lone] }, `${path}.mentions[0]`],
  ] as const) {
    await assert.rejects(save(fields), (error) => {
      assert(error instanceof InvalidError);
      assert.equal(error.details?.["path"], where);
      return true;
    });
  }
  const elsewhere = new Client({ dataDir, scope: lone });
  await assert.rejects(elsewhere.saveMessage({ message: messageOf(1) }), InvalidError);
  assert.equal((await client.getLog()).lastSeq, 0);
  await save({ content: "whole 👋" }); // the connection goes on
  client.close();
  elsewhere.close();
});

void test("text and numbers that JSON cannot carry are refused", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const save = (fields: object): Promise<unknown> =>
    client.call("save-message", { message: { ...messageOf(1), ...fields } });
  await assert.rejects(save({ editedAt: NaN }), /\$\.payload\.message\.editedAt: NaN is no number in JSON/);
  await assert.rejects(save({ revision: 1n }), InvalidError);
  const circle: Record<string, unknown> = {};
  circle["metadata"] = circle;
  await assert.rejects(save(circle), InvalidError);
  await assert.rejects(save({ content: "x".repeat(8 * 2 ** 20) }), TooLargeError);
  for (const requestId of ["", "x".repeat(65), "é".repeat(33), "\ud800"]) {
    await assert.rejects(client.saveMessage({ message: messageOf(1) }, { requestId }), InvalidError);
  }
  assert.equal(await client.getMessageById({ messageId: "m1" }), null);
  client.close();
});

void test("an id makes a command take effect once", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const create = { pubkey: "a key" };
  const first = await client.answer("create-user", create, { requestId: "mine" });
  assert.deepEqual(await client.answer("create-user", create, { requestId: "mine" }), first);
  await assert.rejects(client.answer("create-user", { pubkey: "another" }, { requestId: "mine" }), ConflictError);
  const [twice, again] = await Promise.allSettled([
    client.saveMessage({ message: messageOf(1) }, { requestId: "same" }),
    client.saveMessage({ message: messageOf(1) }, { requestId: "same" }),
  ]);
  assert.deepEqual([twice.status, again.status], ["fulfilled", "rejected"]);
  client.close();
});

void test("scopes are separate", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const [ada, bob] = [new Client({ dataDir, scope: "ada" }), new Client({ dataDir, scope: "bob" })];
  await ada.saveMessage({ message: messageOf(1) });
  assert.equal(await bob.getMessageById({ messageId: "m1" }), null);
  assert.equal((await ada.getMessageById({ messageId: "m1" }))?.id, "m1");
  ada.close();
  bob.close();
});

void test("without a daemon it says so and what to do", async (t) => {
  const client = new Client({ dataDir: temporaryDirectory(t), timeoutMs: 50 });
  await assert.rejects(client.ping(), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /no daemon is ready in .*: start one with `backscroll serve --data-dir/);
    return error.retryable;
  });
  client.close();
  await assert.rejects(client.ping(), /the client was closed; nothing was sent/);
  assert.throws(() => new Client({ endpoint: "http://127.0.0.1" }), InvalidError);
  assert.throws(() => new Client({ endpoint: "curve://127.0.0.1:5555" }), /no CURVE/);
  for (const port of ["0", "65536", "99999", "x"]) {
    assert.throws(() => new Client({ endpoint: `tcp://127.0.0.1:${port}` }), InvalidError);
  }
});

void test("an address that nobody can connect to is an error of each call", async (t) => {
  const dataDir = temporaryDirectory(t);
  writeFileSync(join(dataDir, "endpoint.json"), JSON.stringify({ endpoints: ["tcp://127.0.0.1:99999"], token: "a" }));
  const client = new Client({ dataDir, timeoutMs: LONG_MS });
  await assert.rejects(client.ping(), InvalidError);
  await assert.rejects(client.ping(), InvalidError);
  client.close();
});

void test("a user without a name and a home can call", async (t) => {
  const { dataDir, ready } = await Daemon.start(t);
  const unknownUser = `
    import os from "node:os";
    import { syncBuiltinESMExports } from "node:module";
    os.homedir = os.userInfo = () => { throw new Error("there is no such user"); };
    syncBuiltinESMExports();
    for (const options of ${JSON.stringify([{ dataDir }, { endpoint: ready.endpoints[0] }, {}])}) {
      const client = new Client(options);
      await client.ping().then(({ pong }) => console.log(pong), ({ code, message }) => console.log(code, message));
      client.close();
    }`;
  const env = { ...process.env, BACKSCROLL_DATA_DIR: "", XDG_DATA_HOME: "" };
  assert.match(await printed(unknownUser, env), /^true\ntrue\ninvalid this user has no home directory: name a data/);
});

void test("what onConnection throws harms no request", async (t) => {
  const path = join(temporaryDirectory(t), "socket");
  const fake = await FakeDaemon.start(t, path, (request, socket) => {
    if (fake.connections > 1) return ok(request, null);
    socket.destroy();
    return undefined;
  });
  const code = `
    let thrown = 0;
    process.on("uncaughtException", () => { thrown += 1; });
    const onConnection = () => { throw new Error("a bug"); };
    const client = new Client({ endpoint: ${JSON.stringify(`ipc://${path}`)}, timeoutMs: ${String(LONG_MS)}, onConnection });
    console.log(await client.getUser({ userId: "u" }), thrown > 0);
    client.close();`;
  assert.equal(await printed(code), "null true");
});

void test("onConnection may call the client, and close it", async (t) => {
  const dataDir = temporaryDirectory(t);
  const problems: unknown[] = [];
  const client: Client = new Client({
    dataDir,
    timeoutMs: LONG_MS,
    onConnection: (problem) => {
      problems.push(problem);
      if (problems.length === 3) client.close();
      else client.ping().catch(() => undefined);
    },
  });
  await assert.rejects(client.ping(), /the client was closed; nothing was sent/);
  assert.equal(problems.length, 3);
});

void test("a reply that came while the process was busy is not late", async (t) => {
  const { dataDir } = await Daemon.start(t);
  let losses = 0;
  const client = new Client({ dataDir, onConnection: (problem) => (losses += problem ? 1 : 0) });
  await client.ping();
  const waiting = client.ping({}, { timeoutMs: 100 });
  setImmediate(() => {
    const until = performance.now() + 500;
    while (performance.now() < until); // works
  });
  assert.equal((await waiting).pong, true);
  assert.equal(losses, 0);
  client.close();
});

void test("a client that waits finds a daemon that starts", async (t) => {
  const daemon = await Daemon.start(t);
  await daemon.kill();
  const client = new Client({ dataDir: daemon.dataDir, timeoutMs: LONG_MS });
  const waiting = client.ping();
  await daemon.start();
  assert.equal((await waiting).pong, true);
  client.close();
});

void test("a signal stops waiting", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const { cursor } = await client.getChanges({ after: "now" });
  const abort = new AbortController();
  const waiting = client.getChanges({ after: cursor, waitMs: 60_000 }, { signal: abort.signal });
  setImmediate(() => {
    abort.abort("enough");
  });
  await assert.rejects(waiting, (reason) => reason === "enough");
  await assert.rejects(client.ping({}, { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal((await client.ping()).pong, true);
  client.close();
});

/** Rule: the stack of an error leads to the line of the application that sent the request. */
void test("the stack of an error names its caller", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const editUnknown = async (): Promise<void> => {
    await client.updateMessage({ messageId: "none", updates: { content: "x" } });
  };
  await assert.rejects(editUnknown(), (error: Error) => {
    assert.match(error.stack ?? "", /^NotFoundError: .*there is no message 'none'\n[^]*at async editUnknown/);
    return true;
  });
  client.close();
});

/** Rule: text in the place of a payload or of a file is refused with what belongs there. */
void test("text in place of an object or a file", async () => {
  const client = new Client({ dataDir: "unused" });
  await assert.rejects(client.call("get-message-by-id", "m1" as never), /expected an object, .*, got string/);
  await assert.rejects(client.upload("photo.jpg" as never, "image/jpeg"), /not text: upload createReadStream/);
  client.close();
});

/** Rule: an option that is misspelt, which without types nobody notices, is refused: its data would go elsewhere. */
void test("an unknown option is refused", async () => {
  const options = { scop: "ada" } as ClientOptions;
  assert.throws(() => new Client(options), { name: "InvalidError", message: /no option "scop"/ });
  await assert.rejects(open("data", options), { name: "InvalidError", message: /no option "scop"/ });
  assert(!existsSync("data"));
});
