import { afterAll, beforeAll, expect, test } from "vitest";
import { differenceOf } from "./compare.js";
import { Daemon } from "./daemon.js";
import { indexedDbRunner } from "./indexeddb.js";
import { KNOWN } from "./known.js";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await Daemon.start();
});
afterAll(() => daemon.stop());

const IS_LONG = process.env["LONG"] !== undefined;

for (const { rule, steps } of KNOWN.filter(({ isLong }) => IS_LONG || isLong !== true)) {
  test(rule, { timeout: 300_000 }, async () => {
    const runners = { daemon: daemon.runner(), IndexedDB: indexedDbRunner() };
    for (const isPipelined of [false, true]) {
      expect(await differenceOf({ steps, isPipelined }, runners)).toBeUndefined();
    }
  });
}
