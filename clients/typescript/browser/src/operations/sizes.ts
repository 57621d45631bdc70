/** How large messages are in a page. */

import { LIMITS } from "backscroll/language";
import type { MessageRow } from "../layout.js";
import { jsonBytes } from "../validate.js";

/** The number of bytes in JSON of the texts of a message. */
export function sizeInPage({ message }: MessageRow): number {
  let size = 0;
  for (const value of Object.values(message)) {
    if (typeof value === "string" || typeof value === "object") size += jsonBytes(value);
  }
  return size;
}

/** The range of items that together have at most the bytes of a page, at least the one at `near`. */
export function pageOf(sizes: readonly number[], near: number): [number, number] {
  let start = 0;
  let end = sizes.length;
  let total = sizes.reduce((sum, each) => sum + each, 0);
  while (total > LIMITS.pageBytes && end - start > 1) {
    if (near - start > end - 1 - near) {
      total -= sizes[start] ?? 0;
      start += 1;
    } else {
      end -= 1;
      total -= sizes[end] ?? 0;
    }
  }
  return [start, end];
}
