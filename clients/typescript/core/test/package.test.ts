/** The built package, as an application gets it. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

const root = new URL("../../", import.meta.url);

void test("it can be imported and required, and has no dependency", async () => {
  const require = createRequire(new URL("package.json", root));
  const imported = (await import(new URL("dist/esm/index.js", root).href)) as Record<string, unknown>;
  const required = require("backscroll") as Record<string, unknown>; // by its own name, through `exports`
  assert.deepEqual(Object.keys(required).sort(), Object.keys(imported).sort());
  assert.equal(typeof required["Client"], "function");
  const { dependencies } = require("backscroll/package.json") as { dependencies?: object };
  assert.equal(dependencies, undefined);
});
