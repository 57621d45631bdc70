/** Opening a directory: a client of the daemon that serves it, started if there is none. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { InvalidError, open, UnavailableError } from "../src/index.js";
import { BACKSCROLL, Daemon, FakeDaemon, daemonPid, messageOf, ok, temporaryDirectory, waitUntil } from "./support.js";

const command = [BACKSCROLL];

/** Whether a process is there and is no zombie. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${String(pid)}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Stop whatever serves a directory when the test ends. */
function stopAfter(t: TestContext, dataDir: string): void {
  const pid = daemonPid(dataDir);
  t.after(async () => {
    process.kill(pid, "SIGKILL");
    await waitUntil(() => !isRunning(pid));
  });
}

void test("opened twice at once, a directory has one daemon, which outlives its clients", async (t) => {
  const dataDir = join(temporaryDirectory(t), "new", "data");
  const clients = await Promise.all([1, 2].map(() => open(dataDir, { command })));
  stopAfter(t, dataDir);
  const pids = await Promise.all(clients.map(async (client) => (await client.health()).pid));
  assert.equal(new Set(pids).size, 1);
  await clients[0]?.saveMessage({ message: messageOf(1) });
  for (const client of clients) client.close();
  const again = await open(dataDir, { command });
  assert.equal((await again.health()).pid, pids[0]);
  assert.equal((await again.getMessageById({ messageId: "m1" }))?.content, "1");
  again.close();
  assert.match(readFileSync(join(dataDir, "daemon.log"), "utf8"), /"event":"ready"/);
});

void test("after its signal no daemon is started", async (t) => {
  const dataDir = temporaryDirectory(t);
  const reason = new Error("the application ends");
  await assert.rejects(open(dataDir, { command, signal: AbortSignal.abort(reason) }), reason);
  const stopping = new AbortController();
  const program = ["sh", "-c", "exit 3"]; // another daemon holds the directory, it says, so it is tried again
  const opening = open(dataDir, { command: program, signal: stopping.signal });
  stopping.abort(reason);
  await assert.rejects(opening, reason);
  assert.equal(existsSync(join(dataDir, "endpoint.json")), false);
});

void test("after its signal nothing is opened that is served", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const reason = new Error("the application ends");
  await assert.rejects(open(dataDir, { command, signal: AbortSignal.abort(reason) }), reason);
});

void test("after a kill the next one that opens starts a daemon", async (t) => {
  const daemon = await Daemon.start(t);
  await daemon.kill();
  const client = await open(daemon.dataDir, { command });
  stopAfter(t, daemon.dataDir);
  assert.equal((await client.ping()).pong, true);
  client.close();
});

void test("whoever has a killed daemon's port is not taken for it", async (t) => {
  const dataDir = temporaryDirectory(t);
  const other = await FakeDaemon.start(t, 0, (request) => ok(request, { proof: "0".repeat(64), endpoints: [] }));
  const endpoints = [`tcp://127.0.0.1:${String(other.port)}`];
  writeFileSync(join(dataDir, "endpoint.json"), JSON.stringify({ endpoints, token: "a secret" }));
  const client = await open(dataDir, { command, flags: ["--endpoint", "tcp://127.0.0.1:*"] });
  stopAfter(t, dataDir);
  assert.equal((await client.ping()).pong, true);
  assert(other.requests.every(({ type }) => type === "hello"));
  client.close();
});

void test("with exitWithParent the daemon ends with the process", async (t) => {
  const dataDir = temporaryDirectory(t);
  const code = `
    const { open } = await import(${JSON.stringify(new URL("../src/index.js", import.meta.url).href)});
    const client = await open(${JSON.stringify(dataDir)}, {
      command: ${JSON.stringify(command)}, exitWithParent: true, logFile: ${JSON.stringify(join(dataDir, "own.log"))},
    });
    console.log((await client.health()).pid);
  `;
  // It ends by itself: neither an idle client nor the daemon keeps it alive.
  const child = execFile(process.execPath, ["--input-type=module", "-e", code]);
  let printed = "";
  child.stdout?.on("data", (text: string) => (printed += text));
  assert.deepEqual(await once(child, "exit"), [0, null]);
  const pid = Number(printed);
  assert(pid > 0);
  await waitUntil(() => !isRunning(pid));
  assert(readFileSync(join(dataDir, "own.log")).length > 0);
});

/** Rule: the daemon and the client use the same directory, for which a relative path and `~` mean what they do in Node. */
void test("a path with ~ is a relative one", async (t) => {
  const before = process.cwd();
  process.chdir(temporaryDirectory(t));
  t.after(() => {
    process.chdir(before);
  });
  const client = await open("~/data", { command, exitWithParent: true });
  stopAfter(t, "~/data");
  assert(existsSync("~/data/default.db"));
  client.close();
});

/** Rule: a program that prints something before its daemon is ready is started once, and waited for. */
void test("a program that prints before is started once", async (t) => {
  const dataDir = temporaryDirectory(t);
  const starts = join(dataDir, "starts");
  const script = `echo started >> "${starts}"; echo hello; echo '{"event": "hello"}'; exec "$@"`;
  const client = await open(join(dataDir, "data"), { command: ["sh", "-c", script, "sh", ...command] });
  stopAfter(t, join(dataDir, "data"));
  client.close();
  assert.equal(readFileSync(starts, "utf8"), "started\n");
  assert.equal(statSync(join(dataDir, "data")).mode & 0o777, 0o700);
});

/** Rule: a directory that cannot be used is an `UnavailableError` that names it and the reason. */
void test("a directory that cannot be made is named", async (t) => {
  const file = join(temporaryDirectory(t), "file");
  writeFileSync(file, "");
  for (const path of [file, join(file, "data")]) {
    await assert.rejects(open(path, { command }), (error) => {
      assert(error instanceof UnavailableError);
      assert.match(error.message, /no daemon can be started in .*file.*: (EEXIST|ENOTDIR)/);
      return true;
    });
  }
});

void test("what keeps a daemon from starting is said", async (t) => {
  const dataDir = join(temporaryDirectory(t), "data");
  for (const options of [{ timeoutMs: NaN }, { startTimeoutMs: Infinity }, { startTimeoutMs: -1 }]) {
    await assert.rejects(open(dataDir, { command, ...options }), InvalidError);
  }
  assert(!existsSync(dataDir));
  await assert.rejects(open(dataDir, { command: ["no-such-program"] }), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /the daemon cannot be started: .*ENOENT; check the option `command`/);
    return true;
  });
  await assert.rejects(
    open(dataDir, { command, flags: ["--no-such-flag"] }),
    /exit code 2 before it was ready: .*no-such-flag/s,
  );
  // Nothing of what the daemon before it wrote into the same log.
  await assert.rejects(
    open(dataDir, { command: ["true"] }),
    /exit code 0 before it was ready: it wrote nothing to its log$/,
  );
  await assert.rejects(open(dataDir, { command, logFile: join(dataDir, "none", "log") }), (error) => {
    assert(error instanceof UnavailableError);
    assert.match(error.message, /its log cannot be written: ENOENT.*; name another file/);
    return true;
  });
  await assert.rejects(open(join(dataDir, "daemon.log"), { command }), UnavailableError); // it is a file
});

for (const [level, lowest, message] of [
  [0, 0, /speaks level 0 .* made for level 1: the daemon is too old; update backscroll/],
  [9, 8, /speaks level 9 .* made for level 1: this client is too old; update this package/],
  [9, 1, undefined],
] as const) {
  void test(`a daemon of level ${String(level)} that serves from level ${String(lowest)}`, async (t) => {
    const dataDir = join(temporaryDirectory(t), "data");
    const path = join(dataDir, "socket");
    mkdirSync(dataDir);
    await FakeDaemon.start(t, path, (request) =>
      ok(request, request.type === "health" ? { level, version: "0.0.9" } : { lowestCompatibleLevel: lowest }),
    );
    writeFileSync(join(dataDir, "endpoint.json"), JSON.stringify({ endpoints: [`ipc://${path}`] }));
    if (message) await assert.rejects(open(dataDir, { command }), message);
    else (await open(dataDir, { command })).close();
  });
}
