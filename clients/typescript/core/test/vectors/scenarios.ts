/** `scenarios.json`: steps that the client does on a real daemon. */

import { BackscrollError, type Client } from "../../src/index.js";
import { type Context, request } from "./context.js";
import { checkKeys, difference, plain, type Vector } from "./files.js";

interface Step {
  type: string;
  id?: string;
  payload?: object;
  scope?: string;
  meanwhile?: Step[];
  result?: unknown;
  error?: Record<string, unknown>;
}

export interface ScenarioVector extends Vector {
  steps: Step[];
}

type Bound = Map<string, unknown>;
type Connect = (suffix: string) => Promise<Client>;
/** A result, or an error. */
type Reply = Partial<Record<"result" | "error", unknown>>;

const STEP_KEYS = ["type", "id", "payload", "scope", "meanwhile", "result", "error"];

export async function playScenario({ steps }: ScenarioVector, context: Context): Promise<string> {
  const bound: Bound = new Map();
  const scope = context.newScope();
  for (const [index, step] of steps.entries()) {
    const differs = await play(step, (suffix) => context.client(scope + suffix), bound);
    if (differs) return `steps[${String(index)}] (${step.type}): ${differs}`;
  }
  return "";
}

async function play(step: Step, connect: Connect, bound: Bound): Promise<string> {
  checkKeys(step, STEP_KEYS);
  const replying = reply(step, await connect(step.scope ?? ""), bound);
  for (const inner of step.meanwhile ?? []) {
    const differs = await play(inner, connect, bound);
    if (differs) return differs;
  }
  return compare(step, await replying, bound);
}

async function reply({ type, id, payload = {} }: Step, client: Client, bound: Bound): Promise<Reply> {
  try {
    const { result } = await request(client, type, filled(payload, bound) as object, id);
    return { result: plain(result) };
  } catch (error) {
    if (!(error instanceof BackscrollError)) throw error;
    const { path = null, ...details } = error.details ?? {};
    return { error: { code: error.code, path, details } };
  }
}

/** A payload with what its placeholders stand for. */
function filled(value: unknown, bound: Bound): unknown {
  if (typeof value === "string") {
    if (!value.startsWith("$")) return value;
    return value.startsWith("$$") ? value.slice(1) : bound.get(value);
  }
  if (Array.isArray(value)) return value.map((each) => filled(each, bound));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, filled(each, bound)]));
}

function compare(step: Step, found: Reply, bound: Bound): string {
  if (step.error === undefined) {
    if (!("result" in found)) return `expected a result, got ${JSON.stringify(found)}`;
    return match(step.result, found.result, "result", bound);
  }
  const error = found.error as Record<string, unknown> | undefined;
  if (error === undefined) return `expected the error ${String(step.error["code"])}, got ${JSON.stringify(found)}`;
  const differs = Object.entries(step.error).map(([name, each]) => match(each, error[name], `error.${name}`, bound));
  return differs.find((each) => each) ?? "";
}

/** What differs from what is expected, if anything; placeholders take what is there the first time. */
function match(expected: unknown, actual: unknown, where: string, bound: Bound): string {
  if (expected === "$any") return "";
  if (typeof expected === "string" && expected.startsWith("$")) {
    if (expected.startsWith("$$")) return difference(where, expected.slice(1), actual);
    if (!bound.has(expected)) bound.set(expected, actual);
    return difference(where, bound.get(expected), actual);
  }
  if (!isObject(expected) || !isObject(actual) || Array.isArray(expected) !== Array.isArray(actual)) {
    return difference(where, expected, actual);
  }
  const differs = difference(`${where}: keys`, Object.keys(expected).sort(), Object.keys(actual).sort());
  if (differs) return `${differs} in ${JSON.stringify(actual)}`;
  const parts = Object.entries(expected).map(([name, each]) => match(each, actual[name], `${where}.${name}`, bound));
  return parts.find((each) => each) ?? "";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
