/** The packed package in an empty folder: what an application gets, at run time and from its compiler. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = new URL("../../", import.meta.url).pathname;
/** Where the tools of all packages are installed. */
const workspace = join(root, "..");
const app = mkdtempSync(join(tmpdir(), "backscroll-app-"));
const installed = join(app, "node_modules", "backscroll");
/** The oldest compiler that reads our types, as the README says. */
const LEAST_TYPESCRIPT = "5.0.4";
const leastFolder = join(workspace, "node_modules", ".cache", `typescript-${LEAST_TYPESCRIPT}`);

const MODULE = `
import { Client, ConflictError, type Message, type MessageUpdates, NotFoundError, open } from "backscroll";

export async function use(dataDir: string): Promise<Message[]> {
  const client: Client = await open(dataDir, { exitWithParent: true });
  try {
    const updates: MessageUpdates = { senderName: null };
    await client.updateMessage({ messageId: "m1", updates });
    for await (const { result } of client.watch("get-messages", { roomId: "r1" })) return result;
  } catch (error) {
    if (!(error instanceof NotFoundError || error instanceof ConflictError)) throw error;
  }
  client.close();
  return [];
}

// @ts-expect-error content cannot be cleared
export const wrong: MessageUpdates = { content: null };
`;
const COMMON_JS = `
import backscroll = require("backscroll");

export async function use(client: backscroll.Client): Promise<backscroll.Message | null> {
  // @ts-expect-error it has another name
  await client.getMessageById({ id: "m1" });
  return client.getMessageById({ messageId: "m1" });
}
`;
const RUN = `
if (new Client({ dataDir: "nowhere" }) instanceof Client && typeof open === "function") {
  console.log(new NotFoundError("none", { code: "not-found" }).fault);
}
`;

before(async () => {
  await run("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", app], { cwd: root });
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  writeFileSync(join(app, "package.json"), '{ "name": "app", "private": true }');
  const flags = ["--offline", "--omit=optional", "--no-audit", "--no-fund", "--silent"];
  await run("npm", ["install", ...flags, join(app, `backscroll-${version}.tgz`)], { cwd: app });
  for (const [name, text] of Object.entries({
    "esm.mts": MODULE,
    "cjs.cts": COMMON_JS,
    "plain.ts": MODULE,
    "run.mjs": `import { Client, NotFoundError, open } from "backscroll";${RUN}`,
    "run.cjs": `const { Client, NotFoundError, open } = require("backscroll");${RUN}`,
  })) {
    writeFileSync(join(app, name), text);
  }
  if (!existsSync(leastFolder)) {
    const least = [
      "--prefix",
      leastFolder,
      "--no-package-lock",
      "--no-audit",
      "--no-fund",
      "--silent",
      `typescript@${LEAST_TYPESCRIPT}`,
    ];
    await run("npm", ["install", ...least]);
  }
});

after(() => {
  rmSync(app, { recursive: true, force: true });
});

void test("it brings its code, types and documents, and no other package", () => {
  assert.deepEqual(
    ["LICENSE", "README.md", "CHANGELOG.md", "dist/esm/index.d.ts", "dist/cjs/index.d.ts", "src", "test"].map((name) =>
      existsSync(join(installed, name)),
    ),
    [true, true, true, true, true, false, false],
  );
  const licence = new URL("../../../../../LICENSE", import.meta.url);
  assert.equal(readFileSync(join(installed, "LICENSE"), "utf8"), readFileSync(licence, "utf8"));
});

for (const file of ["run.mjs", "run.cjs"]) {
  void test(`Node runs ${file} with it`, async () => {
    const { stdout } = await run(process.execPath, [file], { cwd: app });
    assert.equal(stdout, "caller\n");
  });
}

const ALL = ["esm.mts", "cjs.cts", "plain.ts"];
for (const [name, folder, settings] of [
  [
    "this project's TypeScript",
    workspace,
    [
      ["node16", "node16", ...ALL],
      ["nodenext", "nodenext", ...ALL],
      ["esnext", "bundler", "plain.ts"],
      ["commonjs", "bundler", "plain.ts", "cjs.cts"],
    ],
  ],
  [
    `TypeScript ${LEAST_TYPESCRIPT}`,
    leastFolder,
    [
      ["nodenext", "nodenext", ...ALL],
      ["commonjs", "node", "plain.ts", "cjs.cts"],
    ],
  ],
] as const) {
  void test(`${name} checks an application with it, however it looks for modules`, async () => {
    const compiler = join(folder, "node_modules", "typescript", "lib", "tsc.js");
    const strict = ["--noEmit", "--strict", "--skipLibCheck", "false", "--target", "es2022", "--lib", "es2022"];
    const types = ["--types", "node", "--typeRoots", join(workspace, "node_modules", "@types")];
    const complaints = settings.map(async ([module, resolution, ...files]) => {
      const how = ["--module", module, "--moduleResolution", resolution];
      try {
        await run(process.execPath, [compiler, ...strict, ...types, ...how, ...files], { cwd: app });
        return "";
      } catch (error) {
        return `${how.join(" ")}: ${(error as { stdout: string }).stdout}`;
      }
    });
    assert.equal((await Promise.all(complaints)).join(""), "");
  });
}
