/**
 * A connection to a daemon, made anew when it is lost. Where the daemon is, is looked up for each connection.
 *
 * Over tcp the daemon first proves with `hello` that it knows the token; until then neither token nor requests are sent.
 */

import { type Address, Greeting, targetOf, unavailable } from "./address.js";
import { BackscrollError } from "./errors.js";
import { ZmtpConnection } from "./zmtp.js";

/** The delay before the next connection after one that was lost or refused; it doubles up to the second until a reply comes. */
const RECONNECT_DELAY_MS = 25;
const RECONNECT_DELAY_MS_MAX = 1_000;
/** How long a connection may take until requests can be sent. */
const CONNECT_TIMEOUT_MS = 2_000;

/** What happens to a transport. */
export interface TransportEvents {
  connected(): void;
  reply(body: Buffer): void;
  /** There is no connection, or none any more; `problem` says why. */
  lost(problem: BackscrollError): void;
}

export class Transport {
  /** The token to send with each request; undefined over ipc. */
  token: string | undefined;
  readonly #find: () => Address;
  readonly #events: TransportEvents;
  #connection: ZmtpConnection | undefined;
  #isConnected = false;
  #isActive = false;
  #delayMs = RECONNECT_DELAY_MS;
  #reconnecting: NodeJS.Timeout | undefined;
  #connecting: NodeJS.Timeout | undefined;

  constructor(find: () => Address, events: TransportEvents) {
    this.#find = find;
    this.#events = events;
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** When the latest bytes arrived on the current connection. */
  get receivedAt(): number {
    return this.#connection?.receivedAt ?? Infinity;
  }

  /**
   * Say whether there are calls: while there are, the connection is made again whenever it is lost, and keeps the
   * process alive.
   */
  setActive(active: boolean): void {
    if (this.#isActive === active) return;
    this.#isActive = active;
    this.#connection?.keepAlive(active);
    if (!active) {
      clearTimeout(this.#reconnecting);
      this.#reconnecting = undefined;
    } else if (this.#connection === undefined && this.#reconnecting === undefined) this.#connect();
  }

  send(body: string): void {
    this.#connection?.send(body);
  }

  /** Give up the current connection. */
  drop(reason: string): void {
    this.#connection?.close(reason);
  }

  close(): void {
    this.setActive(false);
    this.drop("the client was closed");
  }

  #connect(): void {
    let greeting: Greeting | undefined;
    let problem: BackscrollError | undefined;
    let address: Address;
    let connection: ZmtpConnection;
    try {
      address = this.#find();
      connection = new ZmtpConnection(targetOf(address.endpoint), {
        ready: () => {
          if (address.token === undefined) this.#connected(undefined);
          else {
            greeting = new Greeting(address, address.token);
            connection.send(greeting.request());
          }
        },
        message: (body) => {
          if (this.#isConnected) {
            this.#delayMs = RECONNECT_DELAY_MS; // and not before: a daemon may accept connections only to end them
            this.#events.reply(body);
            return;
          }
          problem = greeting?.problemWith(body);
          if (problem === undefined) this.#connected(address.token);
          else connection.close(problem.message);
        },
        closed: (reason) => {
          this.#lost(problem ?? unavailable(`no daemon answers at ${address.endpoint}: ${reason}`));
        },
      });
    } catch (error) {
      // Nobody could catch it here: this may run on a timer.
      this.#lost(error instanceof BackscrollError ? error : unavailable(`cannot connect: ${String(error)}`));
      return;
    }
    this.#connection = connection;
    connection.keepAlive(this.#isActive);
    this.#connecting = setTimeout(() => {
      connection.close(`it did not let the client connect within ${String(CONNECT_TIMEOUT_MS)} ms`);
    }, CONNECT_TIMEOUT_MS).unref();
  }

  #connected(token: string | undefined): void {
    clearTimeout(this.#connecting);
    this.#isConnected = true;
    this.token = token;
    this.#events.connected();
  }

  #lost(problem: BackscrollError): void {
    clearTimeout(this.#connecting);
    this.#connection = undefined;
    this.#isConnected = false;
    this.#events.lost(problem);
    if (!this.#isActive) return;
    this.#reconnecting = setTimeout(() => {
      this.#reconnecting = undefined;
      this.#connect();
    }, this.#delayMs);
    this.#delayMs = Math.min(2 * this.#delayMs, RECONNECT_DELAY_MS_MAX);
  }
}
