/** Opening the database of an account, and what may happen to it while it is open. */

import { openDB, unwrap } from "idb";
import { BackscrollError } from "backscroll/language";
import { asStoreError, storage, unavailable } from "./errors.js";
import type { Database, Layout } from "./layout.js";
import { VERSION, migrate } from "./migrations.js";

/** How long an open may take that is neither blocked nor an upgrade: it waits for what other tabs asked for before. */
export const OPEN_MS = 30_000;

/** What the owner of a connection is told. */
export interface Owner {
  /** The connection was closed, because another tab upgrades the database. */
  superseded(): void;
  /** The connection was closed, because the database was deleted or the browser closed it; it may be opened anew. */
  lost(): void;
}

/** Open a database, which is created or migrated. Waits at most `blockedMs` for other tabs that use an older version. */
export async function openDatabase(name: string, blockedMs: number, owner: Owner): Promise<Database> {
  if (typeof indexedDB === "undefined") {
    throw storage("this browser has no IndexedDB here: it may be switched off, or not allowed in private windows");
  }
  let reject: (error: BackscrollError) => void = () => undefined;
  const isBlocked = new Promise<never>((_resolve, fail) => (reject = fail));
  let isGivenUp = false;
  const giveUpAfter = (ms: number): ReturnType<typeof setTimeout> =>
    setTimeout(() => {
      isGivenUp = true;
      reject(
        unavailable("another tab uses an older version of this application: close it or reload it, and try again"),
      );
    }, ms);
  let timer = giveUpAfter(OPEN_MS);
  try {
    const opening = openDB<Layout>(name, VERSION, {
      upgrade(database, from, _to, transaction) {
        clearTimeout(timer); // it takes as long as there are rows
        transaction.done.catch(() => undefined); // if it fails, so does `opening`
        migrate(unwrap(database), unwrap(transaction), from);
      },
      blocked() {
        clearTimeout(timer);
        timer = giveUpAfter(blockedMs);
      },
      blocking(_from, to, event) {
        (event.target as IDBDatabase).close();
        if (to === null) owner.lost();
        else owner.superseded();
      },
      terminated() {
        owner.lost();
      },
    });
    opening.then(
      (database) => {
        if (isGivenUp) database.close();
      },
      () => undefined,
    );
    return await Promise.race([opening, isBlocked]);
  } catch (error) {
    throw notOpened(error);
  } finally {
    clearTimeout(timer);
  }
}

function notOpened(error: unknown): BackscrollError {
  if (error instanceof BackscrollError) return error;
  if (!(error instanceof DOMException)) return asStoreError(error);
  const said = `${error.name}: ${error.message}`;
  if (error.name === "VersionError") {
    return storage(`the database was written by a later version of this application: reload the page (${said})`);
  }
  if (error.name === "QuotaExceededError") return asStoreError(error);
  return storage(
    `the browser does not open a database: site data may be blocked, or not allowed in private windows (${said})`,
  );
}
