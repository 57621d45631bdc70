/** What changes, as signals of Angular; the database by dependency injection. */

import { DestroyRef, inject, type Provider, type Signal, signal } from "@angular/core";
import type { Store } from "backscroll/language";
import { DatabaseService, type Readable } from "./index.js";

/** Provides `DatabaseService` for `inject(DatabaseService)`, over the store that the function opens. */
export function provideDatabase(openStore: () => Store): Provider {
  return {
    provide: DatabaseService,
    useFactory: () => {
      const database = new DatabaseService(openStore());
      inject(DestroyRef).onDestroy(() => {
        database.close();
      });
      return database;
    },
  };
}

/**
 * A signal with the value of what can be read, such as `database.isReady` or `database.watch(…)`, until the component
 * or service is destroyed in whose injection context it is called, or whose `DestroyRef` is given.
 */
export function toSignal<T>(
  readable: Readable<T>,
  destroyRef: Pick<DestroyRef, "onDestroy"> = inject(DestroyRef),
): Signal<T> {
  const state = signal(readable.value);
  const read = (): void => {
    state.set(readable.value);
  };
  destroyRef.onDestroy(readable.subscribe(read));
  read(); // it may have changed while it was subscribed to
  return state.asReadonly();
}
