import { afterAll, beforeAll, expect, test } from "vitest";
import type { Store } from "backscroll/language";
import { compareHistories } from "./compare.js";
import { Daemon } from "./daemon.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(() => daemon.stop());

const SHORT = { runs: 32, workers: 4 };

test("the same histories have the same outcomes on one daemon", async () => {
  await compareHistories({ runners: { one: daemon.runner(), other: daemon.runner() }, ...SHORT, runs: 100 });
}, 120_000);

/** A store that does not show deleted messages. */
function withoutTombstones(store: Store): Store {
  return {
    ...store,
    query: async (request) => {
      const result: unknown = await store.query(request);
      if (request.type !== "get-messages" || !Array.isArray(result)) return result as never;
      return result.filter((each: { isDeleted: boolean }) => !each.isDeleted) as never;
    },
  };
}

test("a wrong store is found, with a short history", async () => {
  const runners = { right: daemon.runner(), wrong: daemon.runner(withoutTombstones) };
  const error = await compareHistories({ runners, ...SHORT, runs: 1_000 }).catch((each: unknown) => each);
  expect(error).toBeInstanceOf(Error);
  console.log((error as Error).message);
}, 120_000);
