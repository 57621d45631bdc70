import { afterAll, beforeAll, expect, test } from "vitest";
import type { Store } from "backscroll/language";
import { compareHistories } from "./compare.js";
import { Daemon } from "./daemon.js";
import { indexedDbRunner } from "./indexeddb.js";

const IS_LONG = process.env["LONG"] !== undefined;
const RUNS = IS_LONG ? 10_000 : 300;
const TIMEOUT_MS = IS_LONG ? 3_600_000 : 300_000;
/** The daemon's and the test's process have one core each; more at once would take longer. */
const WORKERS = 4;

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(() => daemon.stop());

test("IndexedDB answers every history as the daemon does", { timeout: TIMEOUT_MS }, async () => {
  const runners = { daemon: daemon.runner(), IndexedDB: indexedDbRunner() };
  await compareHistories({ runners, runs: RUNS, workers: WORKERS });
});

/** A store whose lists lack the deleted messages. */
function withoutDeleted(store: Store): Store {
  return {
    ...store,
    query: async (request) => {
      const result = await store.query(request);
      if (request.type !== "get-messages" || !Array.isArray(result)) return result;
      const shown = (result as { isDeleted?: boolean }[]).filter(({ isDeleted }) => isDeleted !== true);
      return shown as typeof result;
    },
  };
}

test("a store that is wrong is found, by a short history", async () => {
  const runners = { right: daemon.runner(), wrong: daemon.runner(withoutDeleted) };
  const found = compareHistories({ runners, runs: 1_000, workers: WORKERS });
  await expect(found).rejects.toThrow(/^the stores differ after these calls:\n(.*\n){1,6}right: .*isDeleted":true/);
});
