import * as fc from "fast-check";
import { test } from "vitest";
import { SEED } from "./compare.js";
import { Browser } from "./indexeddb.js";
import { playAtOnce, playInTurns, tabHistories } from "./tabs.js";

const IS_LONG = process.env["LONG"] !== undefined;
const RUNS = IS_LONG ? 1_000 : 40;
const TIMEOUT_MS = IS_LONG ? 3_600_000 : 300_000;

const PLAYS = {
  "two tabs that take turns answer as one": playInTurns,
  "two tabs at once end with the same": playAtOnce,
};

for (const [rule, play] of Object.entries(PLAYS)) {
  test(rule, { timeout: TIMEOUT_MS }, async () => {
    console.log(`SEED=${String(SEED)}`);
    const property = fc.asyncProperty(tabHistories, (steps) => play(new Browser(), steps));
    await fc.assert(property, { seed: SEED, numRuns: RUNS });
  });
}
