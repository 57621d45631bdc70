/** `retry.json`: the events are played on the client's own `PendingCalls`. */

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
  with?: string;
  sends?: Sent[];
  outcomes?: Record<string, string>;
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
const EVENT_KEYS = ["at", "do", "call", "kind", "waitMs", "timeoutMs", "with", "sends", "outcomes"];
const OPERATION_OF: Readonly<Record<string, [type: string, payload: object]>> = {
  command: ["initialize", {}],
  query: ["get-user", { userId: "ada" }],
  waiting: ["get-changes", {}],
  maintenance: ["delete-scope", {}],
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

  /** Do an event; returns what it led to and should not have. */
  play(event: Event): string {
    checkKeys(event, EVENT_KEYS);
    const before = new Set(this.outcomes.keys());
    const sends = this.#do(event);
    const settled = [...this.outcomes].filter(([name]) => !before.has(name));
    return (
      difference("sends", event.do === "send" ? (event.sends ?? sends) : [], sends) ||
      difference("outcomes", event.outcomes ?? {}, Object.fromEntries(settled)) ||
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
        this.#add(event);
        break;
      case "send":
        return this.#send(event.at);
      case "reply":
        pending.handleReply(this.#reply(event), event.at);
        break;
      case "connected":
        pending.reconnected();
        break;
      case "wait":
        pending.queueRetry(event.at);
        break;
      case "deadline": {
        const call = this.#call(event.call);
        if (!call.isSettled) pending.settle(call, call.unanswered());
        break;
      }
      case "close":
        pending.isClosed = true;
        pending.fail((call) => call.unanswered(CLOSED));
        break;
      default:
        throw new Error(`unknown event ${event.do}`);
    }
    return [];
  }

  #add({ at: now, call: name = "", kind = "", timeoutMs = TIMEOUT_MS, waitMs }: Event): void {
    const operation = OPERATION_OF[kind];
    if (operation === undefined) throw new Error(`unknown kind ${kind}`);
    const [type, payload] = operation;
    const waiting = waitMs === undefined ? payload : { ...payload, waitMs };
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

  #reply({ call: id = "", with: code = "" }: Event): Buffer {
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

interface Body {
  client?: string;
  n?: number;
  deadlineMs: number;
  payload: { waitMs?: number };
}
