/** What README.md says of the package, done as it says. */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { build, preview } from "vite";

const FACADE = fileURLToPath(new URL("../../", import.meta.url));
const README_PATH = join(FACADE, "README.md");
const README = readFileSync(README_PATH, "utf8");
/** The examples in TypeScript: each language and text. */
const EXAMPLES = [...README.matchAll(/```(tsx?)\n(.*?)```/gs)].map(([, language = "", text = ""]) => ({
  language,
  text,
}));

describe("the examples", () => {
  test("are type-checked", { timeout: 120_000 }, () => {
    const folder = join(FACADE, "build/readme");
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    for (const [index, { language, text }] of EXAMPLES.entries()) {
      writeFileSync(join(folder, `example-${String(index)}.${language}`), text);
    }
    const compilerOptions = { experimentalDecorators: true, types: [], skipLibCheck: true };
    const config = { extends: "../../tsconfig.json", compilerOptions, include: ["."] };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
    expect(EXAMPLES.length).toBe(4);
    expect(output("npx", ["tsc", "-p", folder], FACADE)).toBe("");
  });
});

describe("an empty application", () => {
  let folder = "";

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "backscroll-application-"));
  });

  afterAll(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  test("shows a message with the packed packages", { timeout: 180_000 }, async () => {
    output("npm", ["init", "-y"], folder);
    const packed = JSON.parse(
      output(
        "npm",
        [
          "pack",
          "--json",
          "--ignore-scripts",
          "-w",
          "core",
          "-w",
          "browser",
          "-w",
          "facade",
          "--pack-destination",
          folder,
        ],
        join(FACADE, ".."),
      ),
    ) as { filename: string }[] | Record<string, { filename: string }>;
    const files = Object.values(packed).map(({ filename }) => `./${filename}`);
    output("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", ...files], folder);
    writeFileSync(join(folder, "index.html"), '<script type="module" src="/main.ts"></script><body></body>');
    writeFileSync(join(folder, "main.ts"), EXAMPLES[0]?.text ?? "");
    await build({ root: folder, logLevel: "error", build: { target: "es2022" } });
    const server = await preview({ root: folder, logLevel: "error" });
    const browser = await chromium.launch({
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox"],
    });
    try {
      const page = await browser.newPage();
      const url = server.resolvedUrls?.local[0] ?? "";
      await page.goto(url);
      await page.getByText("ada: Hello!").waitFor();
      await page.reload();
      await expect.poll(() => page.getByText("ada: Hello!").innerText()).toBe("ada: Hello!\nada: Hello!");
    } finally {
      await browser.close();
      await server.close();
    }
  });
});

describe("the table of methods", () => {
  test("is what the class has", () => {
    const [before, rest = ""] = README.split("<!-- methods -->\n");
    const [table, after] = rest.split("<!-- /methods -->");
    const expected = tableOfMethods();
    if (process.env["WRITE_README"] !== undefined) {
      writeFileSync(README_PATH, `${before ?? ""}<!-- methods -->\n${expected}<!-- /methods -->${after ?? ""}`);
    } else expect(table, "run the test with WRITE_README=1").toBe(expected);
  });
});

/** The public methods of `DatabaseService`: what to call, and the first sentence about it. */
function tableOfMethods(): string {
  const path = join(FACADE, "src/service.ts");
  const source = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
  const rows: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isMethodDeclaration(node) && ts.isIdentifier(node.name)) {
      const parameters = node.parameters.map(
        (each) => each.name.getText(source) + (each.questionToken || each.initializer ? "?" : ""),
      );
      const [comment] = ts.getJSDocCommentsAndTags(node);
      const text = ts.getTextOfJSDocComment(comment?.comment)?.replaceAll(/\s+/g, " ") ?? "";
      rows.push(`| \`${node.name.text}(${parameters.join(", ")})\` | ${text} |\n`);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return `| method | what it does |\n|---|---|\n${rows.join("")}`;
}

/** What a command writes; throws with everything that it wrote if it fails. */
function output(command: string, words: string[], cwd: string): string {
  try {
    return execFileSync(command, words, { cwd, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${command} ${words.join(" ")} failed:\n${stdout}${stderr}`, { cause: error });
  }
}
