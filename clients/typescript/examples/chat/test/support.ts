/** Both variants of the example, in Chromium: the same tests run on each. */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { preview } from "vite";
import { printedUrl, stop } from "./processes.js";

const EXAMPLE = fileURLToPath(new URL("../../../", import.meta.url));
export const SCREENSHOTS = join(EXAMPLE, "build/screenshots");
export const DAEMON = process.env["BACKSCROLL"] ?? "backscroll";
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

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
  open: (account?: string) => Promise<Page>;
  /** End the process that serves the pages. */
  end: () => Promise<void>;
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
  const [url, end] = variant === "browser" ? await servePages(t) : await startDesktop(t, dataDir);
  const open = async (account?: string): Promise<Page> => {
    const page = await context.newPage();
    const address = new URL(url);
    if (account !== undefined) address.searchParams.set("account", account);
    await page.goto(address.href);
    return page;
  };
  return { context, url, dataDir, open, end };
}

/** The address, and what ends the process that serves it. */
type Served = [url: string, end: () => Promise<void>];

async function servePages(t: TestContext): Promise<Served> {
  const server = await preview({ root: EXAMPLE, logLevel: "warn", preview: { port: 0, host: "127.0.0.1" } });
  const end = (): Promise<void> => server.close();
  t.after(end);
  const url = server.resolvedUrls?.local[0];
  if (url === undefined) throw new Error("vite serves no pages");
  return [url, end];
}

async function startDesktop(t: TestContext, dataDir: string): Promise<Served> {
  const program = fileURLToPath(new URL("../desktop/main.js", import.meta.url));
  const options = ["--port", "0", "--data-dir", dataDir, "--daemon", DAEMON];
  const child = spawn(process.execPath, [program, ...options], { stdio: ["ignore", "pipe", "inherit"] });
  const end = (): Promise<void> => stop(child);
  t.after(end);
  return [await printedUrl(child), end];
}
