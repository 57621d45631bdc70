/** `refusals.json`: bodies that no client makes, sent over one connection of this one. */

import { targetOf } from "../../src/address.js";
import { ZmtpConnection } from "../../src/zmtp.js";
import { type Context, TIMEOUT_MS } from "./context.js";
import { difference, expanded, type Vector } from "./files.js";

export interface RefusalVector extends Vector {
  before?: object[];
  json: string;
  expand?: Record<string, [string, number]>;
  id: string | null;
  error: { code: string; fault: string; retryable: boolean; message: string; path?: string };
}

interface Reply {
  id: string | null;
  ok: boolean;
  error?: { code: string; fault: string; retryable: boolean; message: string; details?: { path?: string } };
}

const exchanges = new WeakMap<Context, Promise<Exchange>>();

export async function playRefusal(vector: RefusalVector, context: Context): Promise<string> {
  const opened = exchanges.get(context) ?? context.endpoint().then((endpoint) => new Exchange(endpoint));
  exchanges.set(context, opened);
  const exchange = await opened;
  for (const request of vector.before ?? []) {
    const reply = await exchange.reply(JSON.stringify(request));
    if (!reply.ok) return `before it: ${JSON.stringify(reply)}`;
  }
  const { id, error } = await exchange.reply(expanded(vector.json, vector.expand));
  if (error === undefined) return "the daemon accepts it";
  const { details, message, ...rest } = error;
  const { message: pattern, ...expected } = vector.error;
  const path = details?.path === undefined ? {} : { path: details.path };
  const isMessage = new RegExp(`^(?:${pattern})$`, "su").test(message);
  return (
    difference("id", vector.id, id) ||
    difference("error", expected, { ...rest, ...path }) ||
    (isMessage ? "" : `message: expected ${pattern}, got ${message}`)
  );
}

/** A connection over which one body after the other is sent and answered. */
class Exchange {
  readonly #connection: ZmtpConnection;
  readonly #ready: Promise<void>;
  #answered: ((reply: Reply) => void) | undefined;
  #failed: (error: Error) => void = () => undefined;

  constructor(endpoint: string) {
    let ready: () => void;
    this.#ready = new Promise((resolve) => (ready = resolve));
    this.#connection = new ZmtpConnection(targetOf(endpoint), {
      ready: () => {
        ready();
      },
      message: (body) => this.#answered?.(JSON.parse(body.toString()) as Reply),
      closed: (reason) => {
        this.#failed(new Error(reason));
      },
    });
    this.#connection.keepAlive(false);
  }

  async reply(body: string): Promise<Reply> {
    await this.#ready;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error("no reply"));
      }, TIMEOUT_MS);
      this.#answered = (reply) => {
        clearTimeout(timer);
        resolve(reply);
      };
      this.#failed = reject;
      this.#connection.send(body);
    });
  }
}
