/** Operations on the data as a whole. */

import { cleared } from "../changes.js";
import { CONTENT, type Writes } from "../layout.js";

/** Nothing to do: `switchScope` creates the database. */
export function initialize(): Promise<null> {
  return Promise.resolve(null);
}

export async function clearAllData(_: object, work: Writes): Promise<null> {
  const { tx } = work;
  await Promise.all([
    ...CONTENT.map((name) => tx.objectStore(name).clear()),
    tx.objectStore("meta").delete("currentUser"),
  ]);
  for (const noun of ["message", "room", "member", "user", "current-user", "ban", "media"] as const) {
    cleared(work, noun);
  }
  return null;
}
