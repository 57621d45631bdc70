/** What a bridged request has to look like, besides that it is plain data. */

import { checkNames, invalidAt, LIMITS } from "backscroll/language";

/** The two ways across the bridge. */
export type Kind = "command" | "query";

/** The name of the bridged command that opens an account. It is none of the daemon's. */
export const SWITCH_SCOPE = "switch-scope";

/** The account in the payload of `switch-scope`; throws `InvalidError` unless it is one the daemon takes. */
export function checkedScope(payload: Record<string, unknown>): string {
  checkNames(payload, ["scope"], "$.payload");
  const { scope } = payload;
  if (typeof scope === "string" && scope.isWellFormed()) {
    const bytes = new TextEncoder().encode(scope).length;
    if (bytes >= 1 && bytes <= LIMITS.scopeBytes) return scope;
  }
  throw invalidAt(
    "$.payload.scope",
    `expected the name of an account, text of 1 to ${String(LIMITS.scopeBytes)} bytes`,
  );
}
