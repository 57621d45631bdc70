/** The store of an application: the daemon that it keeps running, and the accounts that its windows have open. */

import { resolve } from "node:path";
import { type ClientOptions, type OpenOptions, UnavailableError } from "backscroll";
import { Account, type Listener } from "./account.js";
import { type Membership, Session, type SessionOptions } from "./session.js";
import { Supervisor } from "./supervisor.js";

/** Where the data is, and how to start the daemon. */
export interface StoreOptions extends Omit<OpenOptions, "scope" | "onConnection" | "signal"> {
  /** The directory of the data, such as a folder in `app.getPath("userData")`. */
  dataDir: string;
  /** Called with what goes wrong in the background, such as a daemon that cannot be started again. */
  onProblem?: ((problem: unknown) => void) | undefined;
}

/**
 * Open a store: find the daemon that serves its directory, or start one. The daemon ends with this process, unless
 * `exitWithParent` is `false`; when it dies, it is started again. Throws like `open` of `backscroll`.
 */
export async function openStore(options: StoreOptions): Promise<DesktopStore> {
  const { dataDir, onProblem = () => undefined, ...ofOpen } = options;
  // In a turn of its own: it may throw, or use the store, and nothing here is half done then.
  const report = (problem: unknown): void => void setImmediate(onProblem, problem);
  const supervisor = new Supervisor(dataDir, { exitWithParent: true, ...ofOpen }, report);
  await supervisor.start();
  const { token, timeoutMs, logger, traceparent } = ofOpen;
  return new DesktopStore({ dataDir: resolve(dataDir), token, timeoutMs, logger, traceparent }, supervisor, report);
}

/** The accounts of a data directory, for the windows of one application; made by `openStore`. */
export class DesktopStore {
  readonly #client: ClientOptions;
  readonly #supervisor: Supervisor;
  readonly #onProblem: (problem: unknown) => void;
  readonly #accounts = new Map<string, Account>();
  readonly #sessions = new Set<Session>();
  #isClosed = false;

  /** @internal Made by `openStore`. */
  constructor(client: ClientOptions, supervisor: Supervisor, onProblem: (problem: unknown) => void) {
    this.#client = client;
    this.#supervisor = supervisor;
    this.#onProblem = onProblem;
  }

  /**
   * A session for one window: it answers the window's requests, and sends it what changes in its account. Close it with
   * the window. Throws `InvalidError` if an operation cannot be allowed.
   */
  session(options: SessionOptions): Session {
    const session = new Session(options, {
      join: (scope, listener) => this.#join(scope, listener),
      closed: () => this.#sessions.delete(session),
      onProblem: this.#onProblem,
    });
    this.#sessions.add(session);
    return session;
  }

  /**
   * Close all sessions and connections; fulfils when the commands under way have their outcomes. No daemon is started
   * from now on. One that was started here ends with this process.
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    const starting = this.#supervisor.close();
    await Promise.all([...this.#sessions].map((session) => session.close()));
    await starting;
  }

  /** Open an account for a session; the first one opens its client, and the last one that leaves closes it. */
  async #join(scope: string, listener: Listener): Promise<Membership> {
    if (this.#isClosed) throw new UnavailableError("the store was closed", { code: "unavailable" });
    let account = this.#accounts.get(scope);
    if (account === undefined) {
      account = new Account({ ...this.#client, scope }, () => {
        this.#supervisor.restart();
      });
      this.#accounts.set(scope, account);
    }
    const { client, ready } = account;
    const leave = (): void => {
      account.remove(listener);
      if (account.size > 0) return;
      account.close();
      if (this.#accounts.get(scope) === account) this.#accounts.delete(scope);
    };
    account.add(listener);
    try {
      await ready;
    } catch (error) {
      if (this.#accounts.get(scope) === account) this.#accounts.delete(scope); // so that the next one tries again
      leave();
      throw error;
    }
    return { client, leave };
  }
}
