/**
 * `codec.json` and `canonical.json`. The client has no canonical form: a daemon executes what it sends, and the digest in
 * the log tells whether the canonical form of that is the expected one.
 */

import { createHash } from "node:crypto";
import type { LogEntry } from "../../src/index.js";
import { type Answer, BackscrollError, CallerError, type Client, DaemonError, InternalError } from "../../src/index.js";
import { ERRORS } from "../../src/generated/errors.js";
import { Call, PendingCalls } from "../../src/pending.js";
import { type Context, request, TIMEOUT_MS } from "./context.js";
import { difference, plain, type Vector } from "./files.js";

interface ErrorVector {
  code: string;
  path?: string | null;
  fault: "caller" | "daemon";
}

export interface RequestVector extends Vector {
  type: string;
  json: string;
  canonical?: string;
  error?: ErrorVector;
}

export interface ReplyVector extends Vector {
  type: string;
  json: string;
  result?: unknown;
  kept?: unknown;
  error?: ErrorVector;
  invalid?: boolean;
}

export interface CanonicalVector extends Vector {
  type: string;
  json: string[];
  canonical: string;
  salt: string;
  digest: string;
}

const AT = 1_767_225_600_000; // when the commands of the canonical vectors took effect

/** Have the client send a payload, or refuse it. */
export async function playRequest(vector: RequestVector, context: Context): Promise<string> {
  const client = await context.client("codec");
  await prepare(client);
  const outcome = await request(client, vector.type, JSON.parse(vector.json) as object).catch(
    (error: unknown) => error,
  );
  if (outcome instanceof Error) {
    if (!(outcome instanceof BackscrollError)) throw outcome;
    return difference("error", vector.error, { code: outcome.code, path: outcome.details?.["path"] ?? null });
  }
  if (vector.canonical === undefined) return "the client sends it, and the daemon accepts it";
  const { salt, digest, payload } = await entryOf(client, (outcome as Answer<unknown>).seq);
  if (digest === digestOf(salt, vector.canonical)) return "";
  return `the canonical form of what was sent is another one than ${vector.canonical}: ${JSON.stringify(payload)}`;
}

/** Save what the requests refer to. */
async function prepare(client: Client): Promise<void> {
  if ((await client.getRoom({ roomId: "default" })) !== null) return;
  const message = { id: "m1", roomId: "r1", senderId: "ada", content: "", timestamp: 1 };
  await Promise.all([client.saveRoom({ room: { id: "default", name: "d" } }), client.saveMessage({ message })]);
}

/** Have the client read a reply. */
export function playReply(vector: ReplyVector): string {
  const outcome = outcomeOf(vector);
  if (vector.invalid === true) return outcome instanceof InternalError ? "" : "it is taken for a reply";
  if (outcome instanceof BackscrollError) {
    const { code, fault, retryable, message, details } = outcome;
    const found = { code, fault, retryable, message, ...(details && { details }) };
    const ErrorClass = ERRORS[code] ?? (vector.error?.fault === "caller" ? CallerError : DaemonError);
    const isOfClass = outcome.constructor === ErrorClass ? "" : `an error ${code} is a ${outcome.name}`;
    return difference("error", vector.error, found) || isOfClass;
  }
  if (!("result" in vector)) return "it is taken for a success";
  const result = plain(outcome?.result);
  const differs = difference("result", vector.result, result);
  return "kept" in vector && differs ? difference("result", vector.kept, result) : differs;
}

function outcomeOf({ type, json }: ReplyVector): Answer<unknown> | BackscrollError | undefined {
  const pending = new PendingCalls();
  let outcome: Answer<unknown> | BackscrollError | undefined;
  const call = new Call(type, {}, { timeoutMs: TIMEOUT_MS, requestId: "1" }, (each) => (outcome = each));
  pending.add(call);
  pending.markSent(call, performance.now());
  try {
    pending.handleReply(Buffer.from(json), performance.now());
  } catch (error) {
    if (error instanceof BackscrollError) return error;
    throw error;
  }
  return outcome;
}

/** Append the first payload to a log, where it has a digest; the others are the same command, so the same id is a retry. */
export async function playCanonical(vector: CanonicalVector, context: Context): Promise<string> {
  const { type, salt, digest } = vector;
  const client = await context.client("canonical");
  const seq = (await client.getLog({ limit: 1 })).lastSeq + 1;
  const id = `c${String(seq)}`;
  const [first = {}, ...others] = vector.json.map((text) => JSON.parse(text) as Record<string, unknown>);
  await client.appendLog({ entries: [{ seq, at: AT, id, type, payload: first, salt }] });
  const found = (await entryOf(client, seq)).digest;
  const differs =
    difference("the digest in the log", digest, found) ||
    difference("SHA-256(salt · canonical)", digest, digestOf(salt, vector.canonical));
  for (const payload of differs ? [] : others) {
    const answer = await request(client, type, payload, id).catch((error: unknown) => error as Error);
    if (answer instanceof Error) return `${JSON.stringify(payload)} is not the same command: ${answer.message}`;
    if (answer.seq !== seq) return `${JSON.stringify(payload)} was executed again`;
  }
  return differs;
}

async function entryOf(client: Client, seq: number): Promise<LogEntry> {
  const [entry] = (await client.getLog({ fromSeq: seq, limit: 1 })).entries;
  if (entry === undefined) throw new Error(`the log has no entry ${String(seq)}`);
  return entry;
}

function digestOf(salt: string | null | undefined, canonical: string): string {
  return createHash("sha256")
    .update(Buffer.from((salt ?? "") + canonical, "hex"))
    .digest("hex");
}
