/** Cursors of pages: opaque text, which is a list of values in JSON, in base64url. */

const DECODER = new TextDecoder("utf-8", { fatal: true });
const ENCODER = new TextEncoder();

/** The text of a cursor. */
export function writeCursor(values: readonly unknown[]): string {
  const packed = String.fromCharCode(...ENCODER.encode(JSON.stringify(values)));
  return btoa(packed).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The values of a cursor; null if the text is none. */
export function readCursor(text: string): unknown[] | null {
  try {
    const packed = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const values: unknown = JSON.parse(DECODER.decode(Uint8Array.from(packed, (unit) => unit.charCodeAt(0))));
    return Array.isArray(values) ? values : null;
  } catch {
    return null;
  }
}
