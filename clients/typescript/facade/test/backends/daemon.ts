/** Each file of the suite has a daemon of its own. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "backscroll";
import type { Store, StoreEvent } from "backscroll/language";
import { afterAll, beforeAll } from "vitest";
import { useBackend } from "../suite/backend.js";

const dataDir = mkdtempSync(join(tmpdir(), "backscroll-facade-"));
let daemon: ChildProcess | undefined;
const closing: (() => void)[] = [];

beforeAll(async () => {
  const command = process.env["BACKSCROLL"] ?? "backscroll";
  daemon = spawn(command, ["serve", "--data-dir", dataDir, "--exit-with-parent"], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  if (daemon.stdout) await once(daemon.stdout, "data");
});

afterAll(async () => {
  daemon?.kill();
  if (daemon) await once(daemon, "exit");
  rmSync(dataDir, { recursive: true, force: true });
});

useBackend({
  openStore: () => Promise.resolve(clientStore()),
  closeStores: () => {
    for (const close of closing.splice(0)) close();
    return Promise.resolve();
  },
});

/** A store straight over the client for Node. */
function clientStore(): Store {
  let client: Client | undefined;
  const listeners = new Set<(event: StoreEvent) => void>();
  const opened = (): Client => {
    if (client === undefined) throw new Error("no account is open");
    return client;
  };
  const follow = async (followed: Client): Promise<void> => {
    const { cursor } = await followed.getChanges({ after: "now" });
    void (async () => {
      for await (const change of followed.changes({ after: cursor, values: false })) {
        for (const listener of listeners) listener({ type: "changed", changes: [change] });
      }
    })();
  };
  closing.push(() => client?.close());
  return {
    async switchScope(scope) {
      client?.close();
      client = new Client({ dataDir, scope });
      await follow(client);
    },
    command: async ({ type, payload }) => opened().call(type, payload),
    query: async ({ type, payload }) => opened().call(type, payload),
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}
