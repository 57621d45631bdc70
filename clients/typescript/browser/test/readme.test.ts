/** What the README shows. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "./support.js";

const read = (name: string): string => readFileSync(new URL(`../../${name}`, import.meta.url), "utf8");

test("the example of the README is one that runs", async (t) => {
  assert(read("README.md").includes(`\`\`\`ts\n${read("test/example.ts")}\`\`\``));
  const printed: unknown[] = [];
  t.mock.method(console, "log", (each: unknown) => printed.push(each));
  await import("./example.js");
  assert.deepEqual(printed, [["message m1"], ["hello"]]);
});
