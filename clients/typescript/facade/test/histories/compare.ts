/** Runs histories on two stores and tells where they differ. */

import { isDeepStrictEqual } from "node:util";
import * as fc from "fast-check";
import { histories, POOLS } from "./arbitraries.js";
import type { History, Outcome, Pools, Step } from "./steps.js";

/** Runs a history in a new, empty account, and removes that account afterwards. */
export type Runner = (history: History, pools: Pools) => Promise<Outcome[]>;

/** What to compare, and how many histories. */
export interface Comparison {
  /** The runners by the names of their stores. */
  runners: Readonly<Record<string, Runner>>;
  runs: number;
  /** How many histories run at once. */
  workers: number;
  operations?: readonly Step["type"][];
}

/** The seed of the histories: the environment variable SEED, or else one by the clock, which is printed. */
export const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000_000);
/** The path that fast-check prints with the seed of a failure: then only that history runs, and is not made shorter. */
const SEED_PATH = process.env["SEED_PATH"];
const CHARS_MAX = 4_000;

/** Throws an error with the shortest history found on which the stores differ, and with how to run it again. */
export async function compareHistories({ runners, runs, workers, operations }: Comparison): Promise<void> {
  let failing: number | undefined; // the worker that found a difference; the others stop then
  const work = async (index: number): Promise<void> => {
    const property = fc.asyncProperty(histories(operations), async (history) => {
      if (failing !== undefined && failing !== index) return;
      const difference = await differenceOf(history, runners);
      if (difference === undefined) return;
      failing ??= index;
      if (failing !== index) return;
      throw new Error(difference);
    });
    const numRuns = Math.ceil(runs / workers);
    const which = SEED_PATH === undefined ? { numRuns } : { numRuns: 1, path: SEED_PATH, endOnFailure: true };
    await fc.assert(property, { seed: SEED + index, reporter, ...which });
  };
  console.log(`SEED=${String(SEED)}: ${String(runs)} histories of ${Object.keys(runners).join(" and ")}`);
  await Promise.all(Array.from({ length: SEED_PATH === undefined ? workers : 1 }, (_, index) => work(index)));
}

/** Throws what the shortest failing history is, as a list of calls. */
function reporter(details: fc.RunDetails<[History]>): void {
  const { failed, errorInstance, seed, counterexamplePath, numShrinks } = details;
  if (!failed) return;
  const again = `SEED=${String(seed)} SEED_PATH=${String(counterexamplePath)}`;
  const message = errorInstance instanceof Error ? errorInstance.message : String(errorInstance);
  throw new Error(`${message}\nRun it again with ${again} (after ${String(numShrinks)} simplifications)`);
}

/** In words, the first step whose outcomes differ, and the steps before it; undefined if there is none. */
export async function differenceOf(
  { steps, isPipelined }: History,
  runners: Comparison["runners"],
): Promise<string | undefined> {
  const whole: History = { steps: [...steps, { type: "read-all", payload: {} }], isPipelined };
  const names = Object.keys(runners);
  const [outcomes = [], others = []] = await Promise.all(Object.values(runners).map((run) => run(whole, POOLS)));
  const at = whole.steps.findIndex((_, index) => !isDeepStrictEqual(outcomes[index], others[index]));
  if (at < 0) return undefined;
  const calls = whole.steps.slice(0, at + 1).map(({ type, payload }) => `  ${type} ${textOf(payload)}`);
  const differing = onlyDifferent(outcomes[at], others[at]);
  const told = names.map((name, index) => `${name}: ${textOf(differing[index])}`);
  return [`the stores differ after these calls${isPipelined ? ", pipelined" : ""}:`, ...calls, ...told].join("\n");
}

/** Two values without the fields that are equal in both. */
function onlyDifferent(one: unknown, other: unknown): [unknown, unknown] {
  if (!isRecord(one) || !isRecord(other)) return [one, other];
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const differing = names.filter((name) => !isDeepStrictEqual(one[name], other[name]));
  const pairs = differing.map((name) => [name, onlyDifferent(one[name], other[name])] as const);
  return [
    Object.fromEntries(pairs.map(([name, [value]]) => [name, value])),
    Object.fromEntries(pairs.map(([name, [, value]]) => [name, value])),
  ];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function textOf(value: unknown): string {
  const text = JSON.stringify(value) as string | undefined;
  return (text ?? "undefined").slice(0, CHARS_MAX);
}
