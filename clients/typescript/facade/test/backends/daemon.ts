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
  if (daemon.stdout) await Promise.race([once(daemon.stdout, "data"), failure(daemon)]);
});

/** Rejected if the program cannot be started. */
async function failure(program: ChildProcess): Promise<never> {
  const [error] = (await once(program, "error")) as [Error];
  throw error;
}

afterAll(async () => {
  if (daemon?.pid !== undefined) {
    daemon.kill();
    await once(daemon, "exit");
  }
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
  const pending = new Set<Promise<unknown>>();
  const send: Store["query"] = ({ type, payload }) => {
    const reply = opened().call(type, payload);
    pending.add(reply);
    void reply.catch(() => undefined).then(() => pending.delete(reply));
    return reply;
  };
  return {
    async switchScope(scope) {
      const before = client;
      void Promise.allSettled(pending).then(() => before?.close());
      client = new Client({ dataDir, scope });
      await follow(client);
    },
    command: send,
    query: send,
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}
