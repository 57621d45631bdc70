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

test.for(KNOWN)("$rule", async ({ steps }) => {
  const runners = { daemon: daemon.runner(), IndexedDB: indexedDbRunner() };
  for (const isPipelined of [false, true]) {
    expect(await differenceOf({ steps, isPipelined }, runners)).toBeUndefined();
  }
});
