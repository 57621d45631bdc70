/** Both variants of the example, in Chromium: the same tests run on each. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { preview } from "vite";

const EXAMPLE = fileURLToPath(new URL("../../../", import.meta.url));
export const SCREENSHOTS = join(EXAMPLE, "build/screenshots");
export const DAEMON = process.env["BACKSCROLL"] ?? "backscroll";
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const START_MS = 30_000;

export type Variant = "browser" | "desktop";
const VARIANTS: readonly Variant[] = ["browser", "desktop"];
/** The variants to test: both, or the one that `VARIANT` names. */
export const variants = VARIANTS.filter((each) => each === (process.env["VARIANT"] ?? each));

/** The example that is running, with windows that share their storage. */
export interface Running {
  context: BrowserContext;
  url: string;
  /** The directory of the daemon, in the desktop variant. */
  dataDir: string;
  /** Open a window, in which an account may be chosen already. */
  open(account?: string): Promise<Page>;
}

let browser: Promise<Browser> | undefined;
after(async () => {
  await (await browser)?.close();
});

/** Start a variant, with no data, until the end of the test. Any error of a page fails the test. */
export async function start(
  t: TestContext,
  variant: Variant,
  viewport = { width: 1_000, height: 700 },
): Promise<Running> {
  browser ??= chromium.launch({ executablePath: CHROMIUM });
  const context = await (await browser).newContext({ viewport });
  t.after(() => context.close());
  const errors: Error[] = [];
  context.on("weberror", (error) => errors.push(error.error()));
  t.after(() => {
    if (errors[0] !== undefined) throw errors[0];
  });
  const dataDir = mkdtempSync(join(tmpdir(), "chat-"));
  t.after(() => {
    rmSync(dataDir, { recursive: true, force: true });
  });
  const url = variant === "browser" ? await servePages(t) : await startDesktop(t, dataDir);
  const open = async (account?: string): Promise<Page> => {
    const page = await context.newPage();
    const address = new URL(url);
    if (account !== undefined) address.searchParams.set("account", account);
    await page.goto(address.href);
    return page;
  };
  return { context, url, dataDir, open };
}

async function servePages(t: TestContext): Promise<string> {
  const server = await preview({ root: EXAMPLE, logLevel: "warn", preview: { port: 0, host: "127.0.0.1" } });
  t.after(() => server.close());
  const url = server.resolvedUrls?.local[0];
  if (url === undefined) throw new Error("vite serves no pages");
  return url;
}

async function startDesktop(t: TestContext, dataDir: string): Promise<string> {
  const program = fileURLToPath(new URL("../desktop/main.js", import.meta.url));
  const options = ["--port", "0", "--data-dir", dataDir, "--daemon", DAEMON];
  const child = spawn(process.execPath, [program, ...options], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => stop(child));
  return printedUrl(child);
}

/** The address that a server prints when it is ready. */
export function printedUrl(child: ChildProcess): Promise<string> {
  return new Promise((found, fail) => {
    const timer = setTimeout(() => {
      fail(new Error("the example printed no address in time"));
    }, START_MS);
    let printed = "";
    child.stdout?.on("data", (data: Buffer) => {
      printed += data.toString();
      const url = /^Open (\S+)$/m.exec(printed)?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      found(url);
    });
    child.once("exit", (code) => {
      clearTimeout(timer);
      fail(new Error(`the example ended with exit code ${String(code)}`));
    });
  });
}

/** Stop a process that was started here, and wait for its end. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await ended;
}

export const daemonPid = (dataDir: string): number => Number(readFileSync(join(dataDir, "pid"), "utf8").trim());

// What a person does; a window that is not in front draws only once a second

export async function createRoom(page: Page, name: string): Promise<void> {
  await page.bringToFront();
  await page.getByRole("button", { name: "New room" }).click();
  await page.getByRole("textbox", { name: "Name" }).fill(name);
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name }).waitFor();
}

export async function fill(page: Page, count: number): Promise<void> {
  await page.bringToFront();
  await page.getByRole("button", { name: "Fill with sample messages" }).click();
  await page.getByRole("spinbutton", { name: "Messages" }).fill(String(count));
  await page.getByRole("button", { name: "Fill", exact: true }).click();
  await page.getByRole("article").first().waitFor({ timeout: 120_000 });
}

export async function send(page: Page, text: string): Promise<void> {
  await page.bringToFront();
  const composer = page.getByRole("textbox", { name: "Message to" });
  await composer.fill(text);
  await composer.press("Enter");
}

/** Wait until all that was written in a window is stored. */
export async function allSaved(page: Page): Promise<void> {
  await page.waitForFunction(() => !document.body.innerText.includes("Sending…"));
}

/** The message with a text. */
export const message = (page: Page, text: string | RegExp) => page.getByRole("article").filter({ hasText: text });

/** Click one of a message's actions, which appear under the pointer. */
export async function act(page: Page, text: string | RegExp, name: string): Promise<void> {
  await page.bringToFront();
  await message(page, text).hover();
  await message(page, text).getByRole("button", { name, exact: true }).click();
}

export async function switchAccount(page: Page, name: string): Promise<void> {
  await page.bringToFront();
  await page.getByRole("button", { name: "switch account" }).click();
  await page.getByRole("dialog").getByRole("button", { name }).click();
  await page.getByRole("button", { name: `${name} switch account` }).waitFor();
}

/** The id of the message at the top of the view. */
export const topMessage = (page: Page): Promise<string | undefined> =>
  page.evaluate(() => {
    const top = document.querySelector(".scroller")?.getBoundingClientRect().top ?? 0;
    const articles = [...document.querySelectorAll<HTMLElement>("article")];
    return articles.find((article) => article.getBoundingClientRect().bottom > top + 1)?.dataset["id"];
  });

/** Turn the wheel over the messages until a condition holds. */
export async function scrollUntil(page: Page, pixels: number, isThere: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + START_MS;
  await page.bringToFront();
  await page.locator(".scroller").hover();
  while (!(await isThere())) {
    if (Date.now() > deadline) throw new Error("scrolling did not lead there in time");
    await page.mouse.wheel(0, pixels);
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
}
