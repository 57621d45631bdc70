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

test.for(KNOWN.filter(({ isLong }) => IS_LONG || isLong !== true))("$rule", { timeout: 300_000 }, async ({ steps }) => {
  const runners = { daemon: daemon.runner(), IndexedDB: indexedDbRunner() };
  for (const isPipelined of [false, true]) {
    expect(await differenceOf({ steps, isPipelined }, runners)).toBeUndefined();
  }
});
