/** ULIDs: request ids of 26 characters that sort by time, which keeps the daemon's indexes compact. */

import { randomBytes } from "node:crypto";

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const RANDOM_BITS = 80n;

let last = -1n;

/** A new id, greater than the one before even if the clock goes back. */
export function newId(): string {
  const now = BigInt(Date.now());
  last = now > last >> RANDOM_BITS ? (now << RANDOM_BITS) | BigInt(`0x${randomBytes(10).toString("hex")}`) : last + 1n;
  let text = "";
  for (let shift = 125n; shift >= 0n; shift -= 5n) text += ALPHABET.charAt(Number((last >> shift) & 31n));
  return text;
}
