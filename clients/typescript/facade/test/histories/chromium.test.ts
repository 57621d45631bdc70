import * as fc from "fast-check";
import { afterAll, beforeAll, test } from "vitest";
import { Chromium } from "./chromium.js";
import { compareHistories, SEED } from "./compare.js";
import { Daemon } from "./daemon.js";
import { playAtOnce, playInTurns, tabHistories } from "./tabs.js";

const RUNS = 200;
const TAB_RUNS = 3;
const WORKERS = 4;
const TIMEOUT_MS = 300_000;

let daemon: Daemon;
let chromium: Chromium;
beforeAll(async () => {
  [daemon, chromium] = await Promise.all([Daemon.start(), Chromium.start()]);
});
afterAll(() => Promise.all([daemon.stop(), chromium.stop()]));

test("Chromium answers every history as the daemon does", { timeout: TIMEOUT_MS }, async () => {
  const runners = { daemon: daemon.runner(), Chromium: await chromium.runner() };
  await compareHistories({ runners, runs: RUNS, workers: WORKERS });
});

const PLAYS = {
  "two pages that take turns answer as one": playInTurns,
  "two pages at once end with the same": playAtOnce,
};

for (const [rule, play] of Object.entries(PLAYS)) {
  test(rule, { timeout: TIMEOUT_MS }, async () => {
    console.log(`SEED=${String(SEED)}`);
    const property = fc.asyncProperty(tabHistories, (steps) => play(chromium.tabs(), steps));
    await fc.assert(property, { seed: SEED, numRuns: TAB_RUNS });
  });
}
