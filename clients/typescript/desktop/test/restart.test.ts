/** Daemons that die, and are started again. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { promisify } from "node:util";
import { Client } from "backscroll";
import { BackscrollError, type MessagePage } from "backscroll/language";
import { openStore } from "../src/index.js";
import {
  BACKSCROLL,
  changedIds,
  daemonPid,
  isRunning,
  killDaemon,
  messageOf,
  openTestStore,
  openWindow,
  temporaryDirectory,
  waitUntil,
} from "./support.js";

const KILLS = process.env["LONG"] === undefined ? 10 : 50;
const WRITERS = 8;
const STABLE_MS = 1_200;

/** A program that starts daemons; it executes some code first where a file, its flag, exists. */
function programOf(t: TestContext, code: string): { program: string; flag: string } {
  const program = join(temporaryDirectory(t), "program.mjs");
  const flag = `${program}.flag`;
  writeFileSync(
    program,
    `import { existsSync, writeFileSync } from "node:fs";
    import { spawn } from "node:child_process";
    if (existsSync(${JSON.stringify(flag)})) { ${code} }
    const daemon = spawn(${JSON.stringify(BACKSCROLL)}, process.argv.slice(2), { stdio: "inherit" });
    daemon.on("exit", (code) => process.exit(code ?? 1));`,
  );
  return { program, flag };
}

void test("kills under load lose nothing and double nothing", { timeout: 300_000 }, async (t) => {
  const { store, dataDir } = await openTestStore(t);
  const window = openWindow(store);
  await window.page.switchScope("ada");
  const user = { id: "u1", oderId: "ada", username: "ada", displayName: "Ada" };
  await window.page.command({ type: "save-user", payload: { user } });
  await window.page.command({
    type: "save-room",
    payload: { room: { id: "r1", name: "Home", hostId: "ada", createdAt: 1 } },
  });
  const channel = await window.page.command({ type: "create-channel", payload: { roomId: "r1", name: "c1" } });
  const acknowledged = new Set<string>();
  const failed: string[] = [];
  let isWriting = true;
  // Each save has an id of the daemon's: one that took effect twice would be there twice.
  const write = async (writer: number): Promise<void> => {
    for (let number = 0; isWriting; number += 1) {
      const content = `${String(writer)}/${String(number)}`;
      try {
        const payload = { roomId: "r1", channelId: channel.id, authorId: "ada", content };
        await window.page.command({ type: "create-message", payload });
        acknowledged.add(content);
      } catch (error) {
        assert(error instanceof BackscrollError);
        failed.push(`${content}: ${error.code}`);
      }
    }
  };
  const writing = Array.from({ length: WRITERS }, (_, writer) => write(writer));
  for (let kill = 0; kill < KILLS; kill += 1) {
    const begun = performance.now();
    // A daemon that dies sooner is started again more and more slowly, and then requests may wait too long.
    await waitUntil(() => performance.now() - begun > STABLE_MS);
    await killDaemon(dataDir);
    const count = acknowledged.size;
    await waitUntil(() => acknowledged.size >= count + 20);
  }
  isWriting = false;
  await Promise.all(writing);
  const stored: string[] = [];
  let page: MessagePage | undefined;
  do {
    const before = page?.olderCursor ?? null;
    page = await window.page.query({ type: "get-message-page", payload: { roomId: "r1", limit: 500, before } });
    stored.push(...page.messages.map(({ content }) => content));
  } while (page.hasOlder);
  t.diagnostic(`${String(KILLS)} kills, ${String(acknowledged.size)} acknowledged`);
  assert.deepEqual(failed, []);
  assert.equal(new Set(stored).size, stored.length, "a save took effect twice");
  assert.deepEqual(
    [...acknowledged].filter((content) => !stored.includes(content)),
    [],
  );
  const kinds = window.events.map(({ type }) => type).filter((type) => type !== "changed");
  assert(kinds.length >= 2 * KILLS - 2, String(kinds.length));
  assert.deepEqual(
    kinds,
    kinds.map((_, index) => (index % 2 === 0 ? "disconnected" : "connected")),
  );
});

void test("windows learn that the daemon went, and came back", async (t) => {
  const { store, dataDir } = await openTestStore(t);
  const [one, other] = [openWindow(store), openWindow(store)];
  await one.page.switchScope("ada");
  await other.page.switchScope("bo");
  const pid = daemonPid(dataDir);
  await killDaemon(dataDir);
  await waitUntil(() => [one, other].every(({ events }) => events.length === 2));
  for (const { events } of [one, other]) {
    assert(events[0]?.type === "disconnected");
    assert.equal(events[0].problem.code, "unavailable");
    assert.deepEqual(events[1], { type: "connected" });
  }
  assert.notEqual(daemonPid(dataDir), pid);
});

void test("a window that switches while it is away is told", async (t) => {
  const { program, flag: broken } = programOf(t, "process.exit(1);");
  const { store, dataDir } = await openTestStore(t, { command: [process.execPath, program] });
  const window = openWindow(store);
  await window.page.switchScope("ada");
  writeFileSync(broken, "");
  await killDaemon(dataDir);
  await waitUntil(() => window.events.length > 0);
  const switching = window.page.switchScope("bo");
  rmSync(broken);
  await switching;
  await waitUntil(() => window.events.at(-1)?.type === "connected");
});

void test("changes of others while it was away arrive later", async (t) => {
  const { store, dataDir } = await openTestStore(t);
  const [one, other] = [openWindow(store), openWindow(store)];
  await one.page.switchScope("ada");
  await other.page.switchScope("ada");
  await killDaemon(dataDir);
  await other.page.command({ type: "save-message", payload: { message: messageOf(1) } });
  await waitUntil(() => one.events.some(({ type }) => type === "changed"));
  await waitUntil(() => one.events.some(({ type }) => type === "connected"));
});

void test("a window that comes while it is away is told", async (t) => {
  const { store, dataDir } = await openTestStore(t);
  const [one, other] = [openWindow(store), openWindow(store)];
  await one.page.switchScope("ada");
  await killDaemon(dataDir);
  await waitUntil(() => one.events.length > 0);
  await other.page.switchScope("ada");
  await waitUntil(() => other.events.at(-1)?.type === "connected" || one.events.at(-1)?.type === "connected");
  await waitUntil(() => one.events.at(-1)?.type === "connected");
  assert([0, 2].includes(other.events.length), JSON.stringify(other.events));
});

void test("one that died while no window was open is started", async (t) => {
  const { store, dataDir } = await openTestStore(t);
  await killDaemon(dataDir);
  const window = openWindow(store);
  await window.page.switchScope("ada");
  await window.page.command({ type: "save-message", payload: { message: messageOf(1) } });
});

void test("another history of the account is a gap", async (t) => {
  const { store, dataDir } = await openTestStore(t);
  const window = openWindow(store);
  await window.page.switchScope("ada");
  await window.page.command({ type: "save-message", payload: { message: messageOf(1) } });
  await waitUntil(() => changedIds(window.events).includes("m1"));
  using admin = new Client({ dataDir, scope: "ada" });
  await admin.deleteScope();
  await window.page.command({ type: "save-message", payload: { message: messageOf(2) } });
  await waitUntil(() => window.events.some(({ type }) => type === "gap"));
  await window.page.command({ type: "save-message", payload: { message: messageOf(3) } });
  await waitUntil(() => changedIds(window.events).includes("m3"));
});

void test("a daemon that cannot start again is tried again", async (t) => {
  const problems: unknown[] = [];
  const { program, flag: broken } = programOf(t, 'console.error("the disk is full"); process.exit(1);');
  const { store, dataDir } = await openTestStore(t, {
    command: [process.execPath, program],
    onProblem: (problem) => problems.push(problem),
  });
  const window = openWindow(store);
  await window.page.switchScope("ada");
  writeFileSync(broken, "");
  await killDaemon(dataDir);
  await waitUntil(() => problems.length >= 3);
  assert.match(String(problems[0]), /the disk is full/);
  rmSync(broken);
  await waitUntil(() => window.events.at(-1)?.type === "connected");
});

void test("nothing is started after the store was closed", async (t) => {
  const dataDir = temporaryDirectory(t);
  const started = join(dataDir, "started-again");
  const { program, flag } = programOf(t, `writeFileSync(${JSON.stringify(started)}, "");`);
  const store = await openStore({ command: [process.execPath, program], dataDir });
  const window = openWindow(store);
  await window.page.switchScope("ada");
  const pid = daemonPid(dataDir);
  writeFileSync(flag, "");
  const killed = killDaemon(dataDir);
  await store.close();
  await killed;
  assert.equal(isRunning(pid), false);
  await assert.rejects(window.page.switchScope("bo"), { code: "unavailable" });
  const late = openWindow(store);
  await assert.rejects(late.page.switchScope("ada"), { code: "unavailable", message: /closed/ });
  assert.equal(existsSync(started), false);
});

void test("the daemon ends with the process", async (t) => {
  const dataDir = temporaryDirectory(t);
  const url = new URL("../src/index.js", import.meta.url).href;
  const code = `const { openStore } = await import(${JSON.stringify(url)});
    const store = await openStore({ dataDir: process.argv[1], command: [process.argv[2]] });
    await store.session({ send() {} }).answer("command", { type: "switch-scope", payload: { scope: "ada" } });
    process.kill(process.pid, "SIGKILL");`;
  await assert.rejects(
    promisify(execFile)(process.execPath, ["--input-type=module", "-e", code, dataDir, BACKSCROLL]),
    { signal: "SIGKILL" },
  );
  await waitUntil(() => !isServed(dataDir));
});

/** Whether the daemon runs that wrote the directory's address; one that stops takes the file away at any moment. */
function isServed(dataDir: string): boolean {
  try {
    return isRunning(daemonPid(dataDir));
  } catch {
    return false;
  }
}
