import { useEffect, useState } from "preact/hooks";
import type { Readable } from "@backscroll/facade";

/** The value of a readable, now and whenever it changes. */
export function useReadable<Value>(readable: Readable<Value>): Value {
  const [, show] = useState(readable.value);
  useEffect(() => {
    show(() => readable.value); // it may have changed before it was subscribed to
    return readable.subscribe(() => {
      show(() => readable.value);
    });
  }, [readable]);
  return readable.value;
}
