import * as fc from "fast-check";
import { afterAll, beforeAll, test } from "vitest";
import { Chromium } from "./chromium.js";
import { compareHistories, SEED } from "./compare.js";
import { Daemon } from "./daemon.js";
import { playAtOnce, playInTurns, tabHistories } from "./tabs.js";

const RUNS = 200;
const TAB_RUNS = 5;
const WORKERS = 4;

let daemon: Daemon;
let chromium: Chromium;
beforeAll(async () => {
  [daemon, chromium] = await Promise.all([Daemon.start(), Chromium.start()]);
});
afterAll(() => Promise.all([daemon.stop(), chromium.stop()]));

test("Chromium answers every history as the daemon does", { timeout: 300_000 }, async () => {
  const runners = { daemon: daemon.runner(), Chromium: await chromium.runner() };
  await compareHistories({ runners, runs: RUNS, workers: WORKERS });
});

test.each([
  { rule: "two pages that take turns answer as one", play: playInTurns },
  { rule: "two pages at once end with the same", play: playAtOnce },
])("$rule", { timeout: 300_000 }, async ({ play }) => {
  console.log(`SEED=${String(SEED)}`);
  const property = fc.asyncProperty(tabHistories, (steps) => play(chromium.tabs(), steps));
  await fc.assert(property, { seed: SEED, numRuns: TAB_RUNS });
});
