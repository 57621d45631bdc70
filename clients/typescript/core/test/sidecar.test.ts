/** Which program `open` starts, in an application that has installed this package. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { BACKSCROLL, temporaryDirectory } from "./support.js";

const root = new URL("../../", import.meta.url).pathname;
const PACKAGE = "@backscroll/daemon-linux-x64-gnu";
const IMPORT = 'import { open } from "backscroll";';
const REQUIRE = 'const { open } = require("backscroll");';
/** Each in a directory of its own, since the daemon before may still be stopping. */
const OPEN = `
  const started = (client) => { console.log("started"); client.close(); };
  open("data-" + process.pid, { exitWithParent: true }).then(started, (error) => console.log(error.name, error.message));`;

/** An application with this package in its node_modules, and an empty directory `path`. */
function application(t: TestContext, name = "application"): string {
  const directory = join(temporaryDirectory(t), name);
  const installed = join(directory, "node_modules", "backscroll");
  mkdirSync(join(directory, "path"), { recursive: true });
  cpSync(join(root, "dist"), join(installed, "dist"), { recursive: true });
  cpSync(join(root, "package.json"), join(installed, "package.json"));
  return directory;
}

/** A program that says in a file that it was started, and becomes the daemon. */
function program(directory: string, file: string): void {
  const path = join(directory, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(
    path,
    `#!/bin/sh\necho ${file} >started\nPATH='${process.env["PATH"] ?? ""}' exec ${BACKSCROLL} "$@"\n`,
  );
  chmodSync(path, 0o755);
}

/** What an application prints whose `PATH` is its own directory `path`. */
async function run(directory: string, name: string, code: string): Promise<string> {
  writeFileSync(join(directory, name), code);
  const options = { cwd: directory, env: { PATH: join(directory, "path") } };
  return (await promisify(execFile)(process.execPath, [name], options)).stdout;
}

async function startedProgram(directory: string, name: string, code: string): Promise<string> {
  assert.equal(await run(directory, name, `${code}${OPEN}`), "started\n");
  return readFileSync(join(directory, "started"), "utf8").trim();
}

void test("the platform's package goes before the PATH, and a command before both", async (t) => {
  const directory = application(t);
  program(directory, "path/backscroll");
  assert.equal(await startedProgram(directory, "app.mjs", IMPORT), "path/backscroll");
  const packaged = `node_modules/${PACKAGE}/backscroll/backscroll`;
  program(directory, packaged);
  assert.equal(await startedProgram(directory, "app.mjs", IMPORT), packaged);
  assert.equal(await startedProgram(directory, "app.cjs", REQUIRE), packaged);
  program(directory, "path/other");
  const named =
    IMPORT.replace("open", "open as start") +
    'const open = (dir, more) => start(dir, { command: ["other"], ...more });';
  assert.equal(await startedProgram(directory, "app.mjs", named), "path/other");
});

void test("in an Electron application the program beside the archive is started", async (t) => {
  const directory = application(t, "app.asar"); // a directory in its place: Electron shows archives as such
  const packaged = `node_modules/${PACKAGE}/backscroll/backscroll`;
  program(directory, packaged);
  program(directory, `../app.asar.unpacked/${packaged}`);
  assert.equal(await startedProgram(directory, "app.mjs", IMPORT), `../app.asar.unpacked/${packaged}`);
});

void test("without a daemon it is said what to install", async (t) => {
  const directory = application(t);
  assert.match(
    await run(directory, "app.mjs", IMPORT + OPEN),
    /^UnavailableError the daemon cannot be started: spawn backscroll ENOENT; the npm package @backscroll\/daemon-linux-x64-gnu is not installed.*; add it, or put `backscroll` on the PATH, or name a program in the option `command`\n$/,
  );
  const elsewhere = 'Object.defineProperty(process, "platform", { value: "plan9" });';
  assert.match(
    await run(directory, "app.cjs", REQUIRE + elsewhere + OPEN),
    /install the Python package `backscroll`, since there is no npm package of the daemon for plan9-\w+, or put/,
  );
});

void test("a program of the package that does not run is named", async (t) => {
  const directory = application(t);
  const packaged = `node_modules/${PACKAGE}/backscroll/backscroll`;
  program(directory, packaged);
  chmodSync(join(directory, packaged), 0o644);
  assert.match(await run(directory, "app.mjs", IMPORT + OPEN), /EACCES; install the npm package .* again/);
  writeFileSync(join(directory, packaged), "#!/bin/sh\necho GLIBC_2.99 not found >&2; exit 1\n");
  chmodSync(join(directory, packaged), 0o755);
  assert.match(
    await run(directory, "app.mjs", IMPORT + OPEN),
    /the daemon \(.*daemon-linux-x64-gnu.*\) ended with exit code 1 before it was ready: GLIBC_2.99 not found/,
  );
});
