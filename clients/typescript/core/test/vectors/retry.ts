/** `retry.json`: the events are played on the client's own `PendingCalls`. */

import { isDeepStrictEqual } from "node:util";
import { CallerError } from "../../src/index.js";
import { ERRORS } from "../../src/generated/errors.js";
import { Call, CLOSED, PendingCalls } from "../../src/pending.js";
import { checkKeys, difference, type Vector } from "./files.js";

interface Sent {
  call: string;
  n?: number;
  deadlineMs: number;
  waitMs?: number;
}

interface Event {
  at: number;
  do: string;
  call?: string;
  kind?: string;
  waitMs?: number;
  timeoutMs?: number;
  kilobytes?: number;
  with?: string;
  sends?: Sent[];
  outcomes?: Record<string, string>;
  givesUp?: boolean;
}

export interface RowVector extends Vector {
  state: string;
  event: Event;
  to: string;
  outcome?: string;
}

export interface SequenceVector extends Vector {
  events: Event[];
}

export type States = Readonly<Record<string, Event[]>>;

const TIMEOUT_MS = 5_000;
const EVENT_KEYS = "at do call kind waitMs timeoutMs kilobytes with sends outcomes givesUp".split(" ");
const OPERATION_OF: Readonly<Record<string, [type: string, payload: object]>> = {
  command: ["initialize", {}],
  query: ["get-user", { userId: "ada" }],
  waiting: ["get-changes", {}],
  maintenance: ["delete-scope", {}],
  large: ["save-user", { user: { oderId: "ada", id: "ada" } }],
};

/** A row of the table: the state and the outcome that its event leads to. */
export function playRow(vector: RowVector, states: States): string {
  const machine = new Machine();
  for (const event of states[vector.state] ?? []) machine.play(event);
  const [state] = vector.state.split(",");
  const begins = difference("the state before", state, machine.state("a"));
  machine.play(vector.event);
  const outcome = state === "settled" ? undefined : machine.outcomes.get("a");
  return begins || difference("to", vector.to, machine.state("a")) || difference("outcome", vector.outcome, outcome);
}

export function playSequence({ events }: SequenceVector): string {
  const machine = new Machine();
  for (const [index, event] of events.entries()) {
    const differs = machine.play(event);
    if (differs) return `events[${String(index)}] (${event.do}): ${differs}`;
  }
  return "";
}

class Machine {
  readonly outcomes = new Map<string, string>();
  readonly #pending = new PendingCalls();
  readonly #calls = new Map<string, Call>();
  readonly #clients = new Set<string>();
  /** When the latest reply arrived; before anything was sent, if none did on this connection. */
  #receivedAt = -1;
  #givesUp = false;

  /** Do an event; returns what it led to and should not have. */
  play(event: Event): string {
    checkKeys(event, EVENT_KEYS);
    const before = new Set(this.outcomes.keys());
    this.#givesUp = false;
    const sends = inRanges(this.#do(event));
    const settled = [...this.outcomes].filter(([name]) => !before.has(name));
    const outcomes = inRanges(settled.map(([call, outcome]) => ({ call, outcome })));
    return (
      difference("sends", event.do === "send" ? (event.sends ?? sends) : [], sends) ||
      difference(
        "outcomes",
        event.outcomes ?? {},
        Object.fromEntries(outcomes.map((each) => [each.call, each.outcome])),
      ) ||
      difference("givesUp", event.givesUp ?? false, this.#givesUp) ||
      (this.#clients.size > 1 ? "the commands have not all the same `client`" : "")
    );
  }

  /** The state of a call, in the words of the table. */
  state(name: string): string {
    const call = this.#call(name);
    if (this.outcomes.has(name)) return "settled";
    if (call.awaitingReply) return call.inDoubt ? "resent" : "sent";
    if (!call.inDoubt) return "to-send";
    return this.#pending.retryAt < Infinity ? "to-retry" : "to-resend";
  }

  #call(name = ""): Call {
    const call = this.#calls.get(name);
    if (call === undefined) throw new Error(`there is no call ${name}`);
    return call;
  }

  /** Do an event; returns what is sent. */
  #do(event: Event): Sent[] {
    const pending = this.#pending;
    switch (event.do) {
      case "add":
        for (const name of callsIn(event.call)) this.#add(event, name);
        break;
      case "send":
        return this.#send(event.at);
      case "reply":
        this.#receivedAt = event.at;
        for (const name of callsIn(event.call)) pending.handleReply(this.#reply(name, event.with), event.at);
        break;
      case "connected":
        this.#receivedAt = event.at - 1;
        pending.reconnected();
        break;
      case "wait":
        pending.queueRetry(event.at);
        break;
      case "deadline":
        for (const call of callsIn(event.call).map((name) => this.#call(name))) {
          if (!call.isSettled && pending.timeOut(call, call.unanswered(), this.#receivedAt)) this.#givesUp = true;
        }
        break;
      case "close":
        pending.isClosed = true;
        pending.fail((call) => call.unanswered(CLOSED));
        break;
      default:
        throw new Error(`unknown event ${event.do}`);
    }
    return [];
  }

  #add({ at: now, kind = "", timeoutMs = TIMEOUT_MS, waitMs, kilobytes }: Event, name: string): void {
    const operation = OPERATION_OF[kind];
    if (operation === undefined) throw new Error(`unknown kind ${kind}`);
    const [type, payload] = operation;
    const waiting = waitMs === undefined ? payload : { ...payload, waitMs };
    if (kilobytes !== undefined) Object.assign(waiting, { padding: "x".repeat(1000 * kilobytes) });
    const options = { timeoutMs, requestId: name, now, sender: this.#pending.senderOf(type) };
    const call = new Call(type, waiting, options, (outcome) => {
      this.outcomes.set(name, outcome instanceof Error ? outcome.code : "ok");
    });
    this.#calls.set(name, call);
    try {
      this.#pending.add(call);
    } catch (error) {
      this.outcomes.set(name, (error as CallerError).code);
    }
  }

  #reply(id: string, code = ""): Buffer {
    if (code === "ok") {
      const result = this.#calls.get(id)?.waits ? { changes: [], cursor: "c", more: false } : null;
      return Buffer.from(JSON.stringify({ id, ok: true, result, seq: 1 }));
    }
    const fault = ERRORS[code]?.prototype instanceof CallerError ? "caller" : "daemon";
    return Buffer.from(JSON.stringify({ id, ok: false, error: { code, message: "refused", fault, retryable: true } }));
  }

  #send(now: number): Sent[] {
    const sends: Sent[] = [];
    for (let call = this.#pending.next(); call !== undefined; call = this.#pending.next()) {
      const body = JSON.parse(this.#pending.markSent(call, now)) as Body;
      const { client, n, deadlineMs, payload } = body;
      if (client !== undefined) this.#clients.add(client);
      if ((client === undefined) !== (n === undefined)) throw new Error("`client` and `n` go together");
      const waits = call.waits ? { waitMs: payload.waitMs ?? 0 } : {};
      sends.push({ call: call.id, ...(n !== undefined && { n }), deadlineMs, ...waits });
    }
    return sends;
  }
}

/** The names of the calls in `a`, or in `a-1 to a-1000`. */
function callsIn(names = ""): string[] {
  const [first = "", last] = names.split(" to ");
  if (last === undefined) return [first];
  const [group, low] = split(first);
  return Array.from({ length: split(last)[1] - low + 1 }, (_, index) => `${group}-${String(low + index)}`);
}

/**
 * Entries of calls with successive numbers, such as `a-1` and `a-2`, as one, if nothing but `n` differs, which has to
 * rise with them.
 */
function inRanges<Entry extends { call: string; n?: number }>(entries: Entry[]): Entry[] {
  const ranges: Entry[][] = [];
  for (const entry of entries) {
    const range = ranges.at(-1);
    if (range?.[0] !== undefined && isNext(range[0], range.length, entry)) range.push(entry);
    else ranges.push([entry]);
  }
  return ranges.flatMap(([first, ...others]) => {
    const last = others.at(-1);
    return first && last ? { ...first, call: `${first.call} to ${last.call}` } : (first ?? []);
  });
}

/** Whether an entry comes so many calls after the first one of a range. */
function isNext<Entry extends { call: string; n?: number }>(first: Entry, after: number, entry: Entry): boolean {
  const [group, number] = split(first.call);
  const n = first.n === undefined ? {} : { n: first.n + after };
  return isDeepStrictEqual(entry, { ...first, call: `${group}-${String(number + after)}`, ...n });
}

function split(name: string): [group: string, number: number] {
  const at = name.lastIndexOf("-");
  return [name.slice(0, at), Number(name.slice(at + 1))];
}

interface Body {
  client?: string;
  n?: number;
  deadlineMs: number;
  payload: { waitMs?: number };
}
