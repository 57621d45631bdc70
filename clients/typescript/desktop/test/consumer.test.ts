/** The packed package in an empty folder: the README's code against the types of Electron and of browsers. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = new URL("../../", import.meta.url).pathname;
const workspace = join(root, "..");
const app = mkdtempSync(join(tmpdir(), "backscroll-app-"));
const modules = join(app, "node_modules");
const installed = join(modules, "@backscroll", "desktop");
/** Its types only: the program is a download of its own, which its install script would fetch. */
const ELECTRON = "electron@45.5.0";
const electronFolder = join(workspace, "node_modules", ".cache", ELECTRON);
const QUIET = ["--no-audit", "--no-fund", "--silent", "--no-package-lock"];

/** The code of the README, by the name of its file. */
function readmeCode(): Map<string, string> {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  return new Map(
    [...readme.matchAll(/^```ts\n\/\/ (\S+)\n([^]*?)^```/gm)].map(([, name = "", code = ""]) => [name, code]),
  );
}

before(async () => {
  const packages = ["core", "desktop"].map((name) => join(workspace, name));
  const pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", app, ...packages];
  const { stdout } = await run("npm", pack, { cwd: workspace });
  writeFileSync(join(app, "package.json"), '{ "name": "app", "private": true, "type": "module" }');
  const files = stdout
    .trim()
    .split("\n")
    .map((name) => join(app, name));
  await run("npm", ["install", "--offline", "--omit=optional", ...QUIET, ...files], { cwd: app });
  for (const [name, code] of readmeCode()) writeFileSync(join(app, name), code);
  if (!existsSync(electronFolder)) {
    mkdirSync(electronFolder, { recursive: true });
    const words = [
      "install",
      "--prefix",
      electronFolder,
      "--ignore-scripts",
      "--engine-strict=false",
      ...QUIET,
      ELECTRON,
    ];
    await run("npm", words);
  }
  symlinkSync(join(electronFolder, "node_modules", "electron"), join(modules, "electron"));
});

after(() => {
  rmSync(app, { recursive: true, force: true });
});

/** What the compiler complains about. */
async function check(files: string[], ...flags: string[]): Promise<string> {
  const compiler = join(workspace, "node_modules", "typescript", "lib", "tsc.js");
  const strict = ["--noEmit", "--strict", "--target", "es2022", ...flags];
  try {
    await run(process.execPath, [compiler, ...strict, ...files], { cwd: app });
    return "";
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

const NODE = ["--types", "node", "--typeRoots", join(electronFolder, "node_modules", "@types"), "--lib", "es2023"];
const MODULES = ["--module", "nodenext", "--skipLibCheck"];

void test("the README has a main, a preload and a renderer", () => {
  assert.deepEqual([...readmeCode().keys()].sort(), ["main.ts", "preload.ts", "renderer.ts"]);
});

void test("main and preload are right by Electron's types", async () => {
  assert.equal(await check(["main.ts", "preload.ts"], ...NODE, ...MODULES), "");
});

void test("the renderer is right by a browser's types", async () => {
  const bundled = ["--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2023,dom"];
  assert.equal(await check(["renderer.ts"], ...bundled), "");
});

void test("what Electron's types do not allow is found", async () => {
  writeFileSync(
    join(app, "wrong.ts"),
    `import { BrowserWindow, ipcMain, ipcRenderer } from "electron";
    import { type DesktopStore, exposeStore } from "@backscroll/desktop";
    export function use(store: DesktopStore, window: BrowserWindow): void {
      // @ts-expect-error it is the other process's
      exposeStore(ipcRenderer, store);
      // @ts-expect-error a window is none
      exposeStore(ipcMain, store).admit(window);
      // @ts-expect-error it is no operation
      exposeStore(ipcMain, store).admit(window.webContents, { operations: ["drop-tables"] });
    }`,
  );
  assert.equal(await check(["wrong.ts"], ...NODE, ...MODULES), "");
});

void test("the renderer's code imports nothing of Node", () => {
  const seen = new Set<string>();
  const visit = (file: string): void => {
    if (seen.has(file)) return;
    seen.add(file);
    const code = readFileSync(file, "utf8");
    for (const [, name = ""] of code.matchAll(/^(?:import|export)\b[^;]*? from "([^"]+)";/gm)) {
      if (name.startsWith(".")) visit(join(file, "..", name));
      else if (name === "backscroll/language") visit(join(modules, "backscroll", "dist", "esm", "language.js"));
      else assert.fail(`${file} imports ${name}`);
    }
  };
  visit(join(installed, "dist", "renderer.js"));
  visit(join(installed, "dist", "preload.js"));
  assert(seen.size > 5);
});

void test("it brings its code, types and documents, and one package", () => {
  const names = ["LICENSE", "README.md", "CHANGELOG.md", "dist/index.d.ts", "dist/preload.cjs", "src", "test"];
  assert.deepEqual(
    names.map((name) => existsSync(join(installed, name))),
    [true, true, true, true, true, false, false],
  );
  const { dependencies } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
    dependencies: object;
  };
  assert.deepEqual(Object.keys(dependencies), ["backscroll"]);
});

void test("the path of the preload is that of a file", async () => {
  const code = 'console.log((await import("@backscroll/desktop")).preloadPath)';
  const { stdout } = await run(process.execPath, ["--input-type=module", "-e", code], { cwd: app });
  assert(existsSync(stdout.trim()), stdout);
});
