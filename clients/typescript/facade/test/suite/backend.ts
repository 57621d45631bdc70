/** What the suite runs against; the setup file of each run says what that is. */

import type { Store } from "backscroll/language";

export interface Backend {
  /** A store of its own over the data that all others see too, like another window of the application. */
  openStore(): Promise<Store>;
  /** Close what `openStore` opened. */
  closeStores(): Promise<void>;
}

let current: Backend | undefined;

export function useBackend(backend: Backend): void {
  current = backend;
}

export function backend(): Backend {
  if (current === undefined) throw new Error("no setup file has named a backend: run the suite by its vitest projects");
  return current;
}
