/** The example of both READMEs: word for word, and with a daemon that is killed in the middle. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { type Socket, connect, createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { Client } from "../src/index.js";
import { Daemon, temporaryDirectory } from "./support.js";

const root = new URL("../../", import.meta.url);
const example = new URL("example.mjs", root).pathname;
const PRINTED = "ada: Hello! 👋\n";

/** What the example prints with a daemon's directory. */
async function run(dataDir: string): Promise<string> {
  return (await promisify(execFile)(process.execPath, [example, dataDir])).stdout;
}

/**
 * A directory that leads to a daemon through a relay. The relay kills the daemon once, at the first request of a type:
 * either in place of sending it, or when its reply has come, which is then not passed on. Then it starts it again.
 */
async function killedAt(t: TestContext, daemon: Daemon, type: string, when: "request" | "reply"): Promise<string> {
  const dataDir = temporaryDirectory(t);
  const sockets = new Set<Socket>();
  let isKilled = false;
  const restart = async (...lost: Socket[]): Promise<void> => {
    isKilled = true;
    await daemon.kill();
    for (const socket of lost) socket.destroy();
    await daemon.start();
  };
  const relay = createServer((client) => {
    const upstream = connect(daemon.ready.endpoints[0]?.replace("ipc://", "") ?? "");
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
    let isAsked = false;
    client.on("data", (chunk) => {
      isAsked = !isKilled && chunk.includes(`"type":"${type}"`);
      if (isAsked && when === "request") void restart(client, upstream);
      else upstream.write(chunk);
    });
    upstream.on("data", (chunk) => {
      if (!isAsked) client.write(chunk);
      else if (!isKilled) void restart(client, upstream);
    });
  });
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    relay.close();
    assert(isKilled, "the daemon was never killed");
  });
  const path = join(dataDir, "relay.sock");
  await promisify((done: () => void) => relay.listen(path, done))();
  writeFileSync(join(dataDir, "endpoint.json"), JSON.stringify({ endpoints: [`ipc://${path}`] }));
  return dataDir;
}

void test("the README shows the example", () => {
  const code = readFileSync(example, "utf8");
  assert(readFileSync(new URL("README.md", root), "utf8").includes(`\`\`\`js\n${code}\`\`\``));
});

void test("the example runs", async (t) => {
  assert.equal(await run((await Daemon.start(t)).dataDir), PRINTED);
});

for (const type of ["save-message", "save-reaction", "get-message-page"]) {
  for (const when of ["request", "reply"] as const) {
    void test(`the daemon is killed at the ${when} of ${type}: nothing is lost or done twice`, async (t) => {
      const daemon = await Daemon.start(t);
      assert.equal(await run(await killedAt(t, daemon, type, when)), PRINTED);
      using client = new Client({ dataDir: daemon.dataDir });
      assert.deepEqual(
        (await client.getLog({})).entries.map((entry) => entry.type),
        ["save-message", "save-reaction"],
      );
    });
  }
}
