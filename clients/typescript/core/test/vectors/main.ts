/**
 * This client's runner of the conformance vectors: one JSON line for each vector.
 *
 *     node build/test/vectors/main.js DIRECTORY
 */

import {
  type CanonicalVector,
  playCanonical,
  playReply,
  playRequest,
  type ReplyVector,
  type RequestVector,
} from "./codec.js";
import { Context } from "./context.js";
import { checkKeys, lackingFor, load, type Vector, type VectorFile } from "./files.js";
import { type HelloVector, playHello } from "./hello.js";
import { playRefusal, type RefusalVector } from "./refusals.js";
import { playRow, playSequence, type RowVector, type SequenceVector, type States } from "./retry.js";
import { playScenario, type ScenarioVector } from "./scenarios.js";
import { playZmtp, type ZmtpVector } from "./zmtp.js";

/** Where vectors stand, the keys that they may have, and what plays one: it returns what is not as expected. */
interface List {
  set: string;
  list: string;
  keys: string[];
  play: (vector: never, context: Context, file: VectorFile) => string | Promise<string>;
}

const REQUEST_KEYS = ["type", "json", "msgpack", "canonical", "error"];
const REPLY_KEYS = ["type", "json", "msgpack", "result", "kept", "error", "invalid"];
const REFUSAL_KEYS = ["before", "json", "hex", "expand", "id", "error"];

const LISTS: List[] = [
  {
    set: "codec",
    list: "requests",
    keys: REQUEST_KEYS,
    play: (each: RequestVector, context) => playRequest(each, context),
  },
  { set: "codec", list: "replies", keys: REPLY_KEYS, play: (each: ReplyVector) => playReply(each) },
  {
    set: "canonical",
    list: "vectors",
    keys: ["type", "json", "canonical", "salt", "digest"],
    play: (each: CanonicalVector, context) => playCanonical(each, context),
  },
  {
    set: "hello",
    list: "vectors",
    keys: ["token", "nonce", "endpoints", "proof"],
    play: (each: HelloVector) => playHello(each),
  },
  {
    set: "refusals",
    list: "vectors",
    keys: REFUSAL_KEYS,
    play: (each: RefusalVector, context) => playRefusal(each, context),
  },
  { set: "zmtp", list: "vectors", keys: ["connections"], play: (each: ZmtpVector, context) => playZmtp(each, context) },
  {
    set: "retry",
    list: "table",
    keys: ["state", "event", "to", "outcome"],
    play: (each: RowVector, _, file) => playRow(each, file["states"] as States),
  },
  { set: "retry", list: "sequences", keys: ["events"], play: (each: SequenceVector) => playSequence(each) },
  {
    set: "scenarios",
    list: "vectors",
    keys: ["steps"],
    play: (each: ScenarioVector, context) => playScenario(each, context),
  },
];

/** What is not as expected about a vector; null if this language lacks what it needs. */
async function played(
  { keys, play }: List,
  vector: Vector,
  context: Context,
  file: VectorFile,
): Promise<string | null> {
  try {
    checkKeys(vector, ["name", "needs", ...keys]);
    return lackingFor(vector).length > 0 ? null : await play(vector as never, context, file);
  } catch (error) {
    return String(error);
  }
}

async function main(directory: string): Promise<void> {
  const context = new Context();
  try {
    for (const each of LISTS) {
      const file = load(directory, each.set);
      for (const vector of file[each.list] as Vector[]) {
        const why = await played(each, vector, context, file);
        const lacking = why === null ? `needs ${lackingFor(vector).join(", ")}` : why;
        const result = { set: each.set, name: vector.name, ok: why === null ? null : why === "", why: lacking };
        process.stdout.write(`${JSON.stringify(result)}\n`);
      }
    }
  } finally {
    await context.close();
  }
}

await main(process.argv[2] ?? "");
