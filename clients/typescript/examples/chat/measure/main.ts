/**
 * Measures the example: npm run measure -- [--messages 100000] [--runs 7] [--frames 1200] [--variant desktop]
 *
 * Scrolling and memory in both variants, and on the desktop the time from starting the process to the first messages in
 * the page, and that of a page of messages through the bridge, beside the same page on a better-sqlite3 worker with the
 * same tables and data. Prints the figures, and writes them to build/measure.json.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Client, open } from "backscroll";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { preview } from "vite";
import { conversation } from "../src/conversation.js";
import { fill } from "../test/actions.js";
import { daemonPid, printedUrl, stop } from "../test/processes.js";
import { distribution, scrolled } from "./frames.js";

const EXAMPLE = fileURLToPath(new URL("../../../", import.meta.url));
const DESKTOP = fileURLToPath(new URL("../desktop/main.js", import.meta.url));
const BETTER_SQLITE3 = join(EXAMPLE, "measure/better_sqlite3");
const DAEMON = process.env["BACKSCROLL"] ?? "backscroll";
const TOKEN = "measure";
/** A quick turn of a wheel or a flick, and as fast as the rows come. */
const PIXELS_PER_FRAME = { quick: 60, fast: 1_000 };
const PAGES = 300;
const PAGE = 50;
const ACCOUNT = { id: "ada", name: "Ada Lindqvist" };

const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "100000" },
    runs: { type: "string", default: "7" },
    frames: { type: "string", default: "1200" },
    /** `browser` or `desktop`; both without it. */
    variant: { type: "string" },
  },
});
const [MESSAGES, RUNS, FRAMES] = [Number(values.messages), Number(values.runs), Number(values.frames)];

const results: Record<string, unknown> = {
  machine: `${String(cpus().length)} × ${cpus()[0]?.model ?? "?"}, Node ${process.version}`,
  messages: MESSAGES,
};
/** Times by the clock say little when other processes want the processors: so the load is noted with each figure. */
const note = (name: string, value: unknown): void => {
  const load = Number(loadavg()[0]?.toFixed(1));
  results[name] = { load, value };
  console.log(`${name} (load ${String(load)}): ${JSON.stringify(value, undefined, 2)}`);
};

/** To end them also when a measurement fails. */
const started = new Set<ChildProcess>();
const directory = mkdtempSync(join(tmpdir(), "chat-measure-"));
const browser = await chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium" });
async function measure(): Promise<void> {
  if (values.variant !== "browser") {
    const dataDir = join(directory, "data");
    const database = join(directory, "better.db");
    await prepare(dataDir, database);
    await measureDesktop(dataDir, database);
  }
  if (values.variant !== "desktop") await measureBrowser();
  note("load at the end", loadavg());
  mkdirSync(join(EXAMPLE, "build"), { recursive: true });
  writeFileSync(join(EXAMPLE, "build/measure.json"), `${JSON.stringify(results, undefined, 2)}\n`);
}

/** The same data for both: saved through the daemon, whose file is copied when it has ended. */
async function prepare(dataDir: string, database: string): Promise<void> {
  const client = await open(dataDir, { command: [DAEMON], scope: ACCOUNT.id, exitWithParent: true });
  const roomId = `sample-${String(MESSAGES)}`;
  await client.saveRoom({ room: { id: roomId, name: `Weekend plans`, createdAt: 0 } });
  let batch: Promise<unknown>[] = [];
  for (const message of conversation(roomId, ACCOUNT, MESSAGES)) {
    if (batch.push(client.saveMessage({ message })) < 1_000) continue;
    await Promise.all(batch);
    batch = [];
  }
  await Promise.all(batch);
  await endDaemon(client);
  const [file] = readdirSync(join(dataDir, "scopes")).filter((name) => name.endsWith(".db"));
  copyFileSync(join(dataDir, "scopes", file ?? ""), database);
  if (!existsSync(join(BETTER_SQLITE3, "node_modules"))) {
    execFileSync("npm", ["install", "--no-audit", "--no-fund"], { cwd: BETTER_SQLITE3, stdio: "inherit" });
  }
}

async function endDaemon(client: Client): Promise<void> {
  const { pid } = await client.health();
  client.close();
  process.kill(pid);
  await until(() => !isRunning(pid));
}

async function measureDesktop(dataDir: string, database: string): Promise<void> {
  const port = await freePort();
  const starts = {
    daemon: () => spawn(process.execPath, [DESKTOP, "--port", String(port), "--data-dir", dataDir, "--daemon", DAEMON]),
    betterSqlite3: () => spawn(process.execPath, [join(BETTER_SQLITE3, "main.mjs"), database, String(port), TOKEN]),
  };
  // The place where the window resumes is the same for both, because the address is.
  const first = await startAndOpen(starts.daemon, await browser.newContext());
  await first.page.getByRole("button", { name: "Weekend plans" }).click();
  await first.page.getByRole("article").first().waitFor();
  await first.page.waitForFunction(() => localStorage.getItem("backscroll/last-chat/ada") !== null);
  const storageState = await first.page.context().storageState();
  await end(first, dataDir);

  const cold: Record<string, number[]> = { daemon: [], betterSqlite3: [] };
  const processor: Record<string, number[]> = { daemon: [], betterSqlite3: [] };
  const pages: Record<string, number[]> = { daemon: [], betterSqlite3: [] };
  for (let run = 0; run < RUNS; run += 1) {
    for (const [name, start] of Object.entries(starts)) {
      const window = await startAndOpen(start, await browser.newContext({ storageState }));
      await window.page.getByRole("article").first().waitFor();
      cold[name]?.push(await window.firstMessages());
      const pids = [window.child.pid ?? 0, ...(name === "daemon" ? [daemonPid(dataDir)] : [])];
      processor[name]?.push(pids.map(processorMs).reduce((sum, ms) => sum + ms));
      pages[name]?.push(...(await timedPages(window.page)));
      await end(window, name === "daemon" ? dataDir : undefined);
    }
  }
  note("cold start to first messages, ms", mapped(cold, distribution));
  note("of that processor time of the processes without the browser, ms", mapped(processor, distribution));
  note(`page of ${String(PAGE)} through the bridge, ms`, mapped(pages, distribution));

  const window = await startAndOpen(starts.daemon, await browser.newContext({ storageState }));
  await window.page.getByRole("article").first().waitFor();
  await measureWindow("desktop", window.page);
  note("desktop: memory of the processes, MB", {
    main: residentMb(window.child.pid ?? 0),
    daemon: residentMb(daemonPid(dataDir)),
  });
  await end(window, dataDir);
}

async function measureBrowser(): Promise<void> {
  const server = await preview({ root: EXAMPLE, logLevel: "warn", preview: { port: 0, host: "127.0.0.1" } });
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${server.resolvedUrls?.local[0] ?? ""}?account=ada`);
  await page.getByText("No rooms yet").waitFor();
  const begun = performance.now();
  await fill(page, MESSAGES, 1_800_000);
  note("browser: filling, s", Math.round((performance.now() - begun) / 1_000));
  note("browser: page of 50 from IndexedDB, ms", distribution(await timedPages(page)));
  await measureWindow("browser", page);
  await page.context().close();
  await server.close();
}

/** Frames and memory of a window that shows the long room at its end. */
async function measureWindow(name: string, page: Page): Promise<void> {
  note(`${name}: memory at the newest messages, MB`, await memoryOf(page));
  for (const [speed, pixels] of Object.entries(PIXELS_PER_FRAME)) {
    note(
      `${name}: scrolling up, ${speed}, ${String(pixels)} px a frame`,
      await scrolled(browser, page, -pixels, FRAMES),
    );
    note(
      `${name}: scrolling down, ${speed}, ${String(pixels)} px a frame`,
      await scrolled(browser, page, pixels, FRAMES),
    );
  }
  const begun = performance.now();
  await scrollToOldest(page);
  note(
    `${name}: from the newest to the oldest of ${String(MESSAGES)}, s`,
    Math.round((performance.now() - begun) / 1_000),
  );
  note(`${name}: memory at the oldest message, MB`, await memoryOf(page));
}

/** As far as it goes, as fast as it goes. */
async function scrollToOldest(page: Page): Promise<void> {
  await page.evaluate(
    (oldest) =>
      new Promise<void>((done) => {
        const step = (): void => {
          document.querySelector(".scroller")?.scrollBy(0, -3_000);
          if (document.querySelector(`[data-id="${oldest}"]`) !== null) done();
          else requestAnimationFrame(step);
        };
        step();
      }),
    `sample-${String(MESSAGES)}-000000`,
  );
}

interface Window {
  child: ChildProcess;
  page: Page;
  /** From the start of the process to the first messages in the page. Milliseconds. */
  firstMessages(): Promise<number>;
}

async function startAndOpen(start: () => ChildProcess, context: BrowserContext): Promise<Window> {
  const page = await context.newPage();
  await page.addInitScript(() => {
    new MutationObserver((_, observer) => {
      if (document.querySelector("article") === null) return;
      observer.disconnect();
      Object.assign(globalThis, { firstMessagesAt: Date.now() });
    }).observe(document, { childList: true, subtree: true });
  });
  const begun = Date.now();
  const child = start();
  started.add(child);
  child.stderr?.pipe(process.stderr);
  const url = new URL(await printedUrl(child));
  url.searchParams.set("account", ACCOUNT.id);
  await page.goto(url.href);
  const firstMessages = (): Promise<number> =>
    page.evaluate((from) => (globalThis as unknown as { firstMessagesAt: number }).firstMessagesAt - from, begun);
  return { child, page, firstMessages };
}

/** End a variant, and wait until its daemon has ended too: the next start is a cold one. */
async function end({ child, page }: Window, dataDir: string | undefined): Promise<void> {
  const pid = dataDir === undefined ? undefined : daemonPid(dataDir);
  await page.context().close();
  await stop(child);
  if (pid !== undefined) await until(() => !isRunning(pid));
}

/** How long each of some pages takes, one after the other into the past. */
const timedPages = (page: Page): Promise<number[]> =>
  page.evaluate(
    async ({ roomId, limit, count }) => {
      const { db } = globalThis as unknown as {
        db: { getMessagePage(query: object): Promise<{ olderCursor?: string; messages: unknown[] }> };
      };
      const times: number[] = [];
      let before: string | undefined;
      while (times.length < count) {
        const begun = performance.now();
        const { olderCursor } = await db.getMessagePage({ roomId, limit, ...(before !== undefined && { before }) });
        times.push(performance.now() - begun);
        before = olderCursor;
        if (before === undefined) break;
      }
      return times;
    },
    { roomId: `sample-${String(MESSAGES)}`, limit: PAGE, count: PAGES },
  );

/** After a collection of garbage; the processes that render share libraries, which are counted in each. */
async function memoryOf(page: Page): Promise<object> {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.enable");
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  await session.detach();
  const renderers = await rendererPids(browser);
  return { jsHeap: mb(usedSize), elements: nodes, renderer: Math.max(...renderers.map(residentMb)) };
}

async function rendererPids(of: Browser): Promise<number[]> {
  const session = await of.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  return processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
}

const mb = (bytes: number): number => Number((bytes / 1_048_576).toFixed(1));

/** The resident memory of a process, on Linux. */
function residentMb(pid: number): number {
  const kb = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${String(pid)}/status`, "utf8"))?.[1];
  return Math.round(Number(kb) / 1_024);
}

/** The processor time that a process has taken, to a hundredth of a second, on Linux. */
function processorMs(pid: number): number {
  const stat = readFileSync(`/proc/${String(pid)}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resume) => setTimeout(resume, 5));
}

const mapped = <Value, Result>(values: Record<string, Value>, map: (value: Value) => Result): Record<string, Result> =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, map(value)]));

function freePort(): Promise<number> {
  return new Promise((found) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => {
        found(typeof address === "object" && address !== null ? address.port : 0);
      });
    });
  });
}

try {
  await measure();
} finally {
  for (const child of started) child.kill();
  await browser.close();
  rmSync(directory, { recursive: true, force: true });
}
