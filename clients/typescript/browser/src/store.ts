/** The store of a user interface, on IndexedDB. */

import type { Results, Payloads, Store, StoreEvent, StoreRequest } from "backscroll/language";
import { checkedRequest, LIMITS } from "backscroll/language";
import { Account, type AccountOptions } from "./account.js";
import { invalid, noAccount } from "./errors.js";
import type { LegacyOptions } from "./legacy.js";
import { bytesOf, checkedPayload, knownOperation } from "./validate.js";

/** How a store is opened. */
export interface BrowserStoreOptions {
  /** What the names of the databases begin with; `backscroll` by default. */
  name?: string;
  /** How long to wait for other tabs that use an older version of the database, in milliseconds; 5,000 by default. */
  blockedMs?: number;
  /** The database of an application that kept all accounts in one, to be copied for its owner. */
  legacy?: LegacyOptions;
  /**
   * Whether to ask the browser to keep the data when it runs out of room; some browsers ask the user. True by default.
   */
  persist?: boolean;
}

/** A store that can be closed. */
export interface BrowserStore extends Store {
  /** Finish what was called, and close the database. */
  close(): Promise<void>;
}

/** The store of this browser; call `switchScope` first. */
export function openBrowserStore(options: BrowserStoreOptions = {}): BrowserStore {
  return new IndexedStore(options);
}

type Listener = (event: StoreEvent) => void;

class IndexedStore implements BrowserStore {
  readonly #name: string;
  readonly #options: Pick<AccountOptions, "blockedMs" | "legacy">;
  readonly #listeners = new Set<Listener>();
  #account: Account | undefined;

  #asksToPersist: boolean;

  constructor({ name = "backscroll", blockedMs = 5_000, legacy, persist = true }: BrowserStoreOptions) {
    this.#name = name;
    this.#options = { blockedMs, legacy };
    this.#asksToPersist = persist;
  }

  async switchScope(scope: string): Promise<void> {
    checkScope(scope);
    const before = this.#account;
    const account: Account = new Account(scope, `${this.#name}:${scope}`, {
      ...this.#options,
      tell: (event) => {
        if (this.#account === account) this.#tell(event);
      },
    });
    this.#account = account;
    this.#askToPersist();
    try {
      await account.open(before?.close());
    } catch (error) {
      if (this.#account === account) this.#account = undefined;
      throw error;
    }
  }

  async command<Name extends keyof Payloads>(request: StoreRequest<Name>): Promise<Results[Name]> {
    const { type, payload } = checkedRequest(request);
    const name = knownOperation(type, "command");
    return (await this.#opened().command(name, checkedPayload(name, payload))) as Results[Name];
  }

  async query<Name extends keyof Payloads>(request: StoreRequest<Name>): Promise<Results[Name]> {
    const { type, payload } = checkedRequest(request);
    const name = knownOperation(type, "query");
    return (await this.#opened().query(name, checkedPayload(name, payload))) as Results[Name];
  }

  subscribe(listener: Listener): () => void {
    const own: Listener = (event) => {
      listener(event);
    };
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  async close(): Promise<void> {
    const account = this.#account;
    this.#account = undefined;
    await account?.close();
  }

  #opened(): Account {
    if (this.#account === undefined) throw noAccount();
    return this.#account;
  }

  /** Once; whether the browser agrees changes nothing here. */
  #askToPersist(): void {
    if (!this.#asksToPersist) return;
    this.#asksToPersist = false;
    if (typeof navigator === "undefined" || !("storage" in navigator)) return; // not on a page without TLS
    navigator.storage.persist().catch(() => undefined);
  }

  #tell(event: StoreEvent): void {
    for (const listener of [...this.#listeners]) {
      try {
        if (this.#listeners.has(listener)) listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // of the application, uncaught; the others are told all the same
        });
      }
    }
  }
}

function checkScope(scope: unknown): void {
  if (typeof scope !== "string" || scope === "" || !scope.isWellFormed()) {
    throw invalid("$.payload.scope", "the name of an account is text, and not empty");
  }
  if (bytesOf(scope) > LIMITS.scopeBytes) {
    throw invalid("$.payload.scope", `the name of an account has at most ${String(LIMITS.scopeBytes)} bytes`);
  }
}
