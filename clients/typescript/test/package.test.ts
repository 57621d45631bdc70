/** The built package, as an application gets it. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { promisify } from "node:util";
import { Daemon } from "./support.js";

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

void test("the example runs", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const example = new URL("example.mjs", root).pathname;
  const { stdout } = await promisify(execFile)(process.execPath, [example, dataDir]);
  assert.equal(stdout, "ada: Hello! 👋\n");
});

void test("the README shows the example", () => {
  const example = readFileSync(new URL("example.mjs", root), "utf8");
  assert(readFileSync(new URL("README.md", root), "utf8").includes(`\`\`\`js\n${example}\`\`\``));
});
