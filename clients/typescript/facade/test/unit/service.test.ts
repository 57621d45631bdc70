/** What a caller is told that made a mistake, or handles no failure. */

import { ERRORS } from "backscroll/language";
import { expect, test } from "vitest";
import { DatabaseService } from "../../src/index.js";
import { HeldStore } from "./held-store.js";

test("a service without a store says what it takes", () => {
  expect(() => new DatabaseService(undefined as never)).toThrow("takes a store, such as openBrowserStore()");
  expect(() => new DatabaseService((() => undefined) as never)).toThrow("takes a store");
});

test("an account that cannot be opened is reported if nobody handles it", async () => {
  const reported: unknown[] = [];
  const note = (reason: unknown): void => void reported.push(reason);
  const others = process.rawListeners("unhandledRejection").slice() as NodeJS.UnhandledRejectionListener[];
  process.removeAllListeners("unhandledRejection").on("unhandledRejection", note);
  try {
    const store = new HeldStore();
    void new DatabaseService(store).initialize("ada");
    await expect.poll(() => store.held.length).toBe(1);
    const failure = new Error("no IndexedDB here");
    store.held[0]?.reject(failure);
    await expect.poll(() => reported).toEqual([failure]);
  } finally {
    process.removeAllListeners("unhandledRejection");
    for (const each of others) process.on("unhandledRejection", each);
  }
});

test("each error has the name of its class written down", () => {
  for (const [code, ErrorClass] of Object.entries(ERRORS)) {
    const error = new ErrorClass("", { code });
    expect(
      error.name
        .replace(/Error$/, "")
        .replace(/(?<=[a-z])(?=[A-Z])/g, "-")
        .toLowerCase(),
    ).toBe(code);
    expect(ErrorClass.toString()).toContain(`"${error.name}"`); // so that no bundler shortens it
  }
});
