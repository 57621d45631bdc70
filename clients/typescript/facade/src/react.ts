/** What changes, in React: the hooks render again when it does. */

import type { Payloads, Results, WatchedName } from "backscroll/language";
import { useCallback, useMemo, useSyncExternalStore } from "react";
import type { DatabaseService, Readable } from "./index.js";

/** The value of what can be read, such as `database.isReady`. */
export function useReadable<T>(readable: Readable<T>): T {
  const subscribe = useCallback((listener: () => void) => readable.subscribe(listener), [readable]);
  const read = (): T => readable.value;
  return useSyncExternalStore(subscribe, read, read);
}

/** The result of a query while the component is mounted, and why the latest question has none, if so. */
export function useWatch<Name extends WatchedName>(
  database: DatabaseService,
  type: Name,
  payload: Payloads[Name],
): { value: Results[Name] | undefined; error: Error | undefined } {
  const key = JSON.stringify(payload); // an equal payload is the same question, although it is a new object
  const query = useMemo(() => database.watch(type, JSON.parse(key) as Payloads[Name]), [database, type, key]);
  return { value: useReadable(query), error: useReadable(query.error) };
}
