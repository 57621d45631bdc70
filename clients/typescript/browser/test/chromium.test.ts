/** The store in a real Chromium: two tabs, closed and frozen ones, a disk without room, and large rooms. */

import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { type BrowserContext, type CDPSession, type Page, chromium } from "playwright-core";
import { IS_LONG, atEnd, waitUntil, test } from "./support.js";
import type {} from "./page.js";

const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const ORIGIN = "http://localhost/";
const ENTRY = fileURLToPath(new URL("page.js", import.meta.url));

/** A Chromium with nothing stored, until the end of the test. */
async function started(t: TestContext): Promise<BrowserContext> {
  const { outputFiles } = await build({ entryPoints: [ENTRY], bundle: true, format: "iife", write: false });
  const body = `<!doctype html><script>${outputFiles[0]?.text ?? ""}</script>`;
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  atEnd(t, () => browser.close());
  const context = await browser.newContext();
  await context.route(ORIGIN, (route) => route.fulfill({ contentType: "text/html; charset=utf-8", body }));
  return context;
}

async function tab(context: BrowserContext, scope: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(ORIGIN);
  await page.evaluate((name) => window.calls.open(name), scope);
  return page;
}

function upTo(number: number): number[] {
  return Array.from({ length: number }, (_, at) => at + 1);
}

test("two tabs save at once, and each is told of all in order", async (t) => {
  const context = await started(t);
  const [one, other] = [await tab(context, "ada"), await tab(context, "ada")];
  await Promise.all([one.evaluate(() => window.calls.fill(0, 100)), other.evaluate(() => window.calls.fill(100, 200))]);
  for (const page of [one, other]) {
    await waitUntil(async () => (await page.evaluate(() => window.calls.seqs())).length === 200);
    assert.deepEqual(await page.evaluate(() => window.calls.seqs()), upTo(200));
    assert.equal((await page.evaluate(() => window.calls.ids())).length, 200);
  }
}, 120_000);

test("what a closed tab saved is whole and in order", async (t) => {
  const context = await started(t);
  const [one, other] = [await tab(context, "ada"), await tab(context, "ada")];
  await one.evaluate(() => {
    window.calls.saveUnawaited(0, 2_000);
  });
  await waitUntil(async () => (await other.evaluate(() => window.calls.seqs())).length > 5);
  await one.close();
  await other.evaluate(() => window.calls.save(5_000));
  const seqs = await other.evaluate(() => window.calls.seqs());
  const ids = await other.evaluate(() => window.calls.ids());
  await waitUntil(async () => (await other.evaluate(() => window.calls.seqs())).length === ids.length);
  t.diagnostic(`${String(ids.length)} of 2,001 messages, ${String(seqs.length)} told at once`);
  assert.deepEqual(ids, [...upTo(ids.length - 1).map((number) => `m${String(number - 1)}`), "m5000"]);
  assert.deepEqual(await other.evaluate(() => window.calls.seqs()), upTo(ids.length));
}, 120_000);

test("a frozen tab is told of everything when it goes on", async (t) => {
  const context = await started(t);
  const [one, other] = [await tab(context, "ada"), await tab(context, "ada")];
  const session = await context.newCDPSession(other);
  await session.send("Page.setWebLifecycleState", { state: "frozen" });
  await one.evaluate(() => window.calls.fill(0, 700));
  await session.send("Page.setWebLifecycleState", { state: "active" });
  await waitUntil(async () => (await other.evaluate(() => window.calls.seqs())).length === 700);
  assert.deepEqual(await other.evaluate(() => window.calls.seqs()), upTo(700));
  assert.deepEqual(new Set(await other.evaluate(() => window.calls.kinds())), new Set(["changed"]));
}, 120_000);

test("without room a command is refused and has no effect", async (t) => {
  const context = await started(t);
  const page = await context.newPage();
  await page.goto(ORIGIN);
  const session = await context.newCDPSession(page);
  await setQuota(session, 3_000_000); // before the database is opened: Chromium remembers what is free
  await page.evaluate(() => window.calls.open("ada"));
  await page.evaluate(() => window.calls.save(0));
  let saved = 0;
  let refused: Awaited<ReturnType<typeof window.calls.saveError>> = null;
  while (refused === null && saved < 20) {
    saved += 1;
    refused = await page.evaluate((number) => window.calls.saveError(number, 500_000), saved);
  }
  t.diagnostic(JSON.stringify(refused));
  assert.deepEqual([refused?.code, refused?.retryable], ["storage", true]);
  assert.match(refused?.message ?? "", /no more room/);
  const before = await page.evaluate(() => window.calls.ids());
  assert(!before.includes(`m${String(saved)}`));
  await session.send("Storage.overrideQuotaForOrigin", { origin: ORIGIN });
  await page.evaluate((number) => window.calls.save(number), saved);
  assert.deepEqual(await page.evaluate(() => window.calls.ids()), [...before, `m${String(saved)}`]);
  assert.deepEqual(await page.evaluate(() => window.calls.seqs()), upTo(saved + 1), "no number is left out");
}, 120_000);

test("a page does not take longer in a large room", async (t) => {
  const context = await started(t);
  const page = await tab(context, "before");
  const session = await context.newCDPSession(page);
  const messages = IS_LONG ? 100_000 : 3_000;
  const fill = await page.evaluate((to) => window.calls.fill(0, to), 1_000);
  const adopt = await page.evaluate((to) => window.calls.adopt(to), 1_000);
  await page.evaluate((to) => window.calls.fillRows(1_000, to), messages);
  const ends = Array.from({ length: 30 }, () => ({ limit: 50 }));
  const middles = Array.from({ length: 30 }, (_, at) => ({
    limit: 50,
    around: `m${String((messages >> 1) + at * 31)}`,
  }));
  const end = await page.evaluate((payloads) => window.calls.pageTimes(payloads), ends);
  const middle = await page.evaluate((payloads) => window.calls.pageTimes(payloads), middles);
  const offset = await page.evaluate((number) => window.calls.time("offset", number), messages >> 1);
  const save = await page.evaluate(() => window.calls.time("save", 10_000_000));
  const open = await page.evaluate(() => window.calls.time("open", 0));
  const heap = await heapOf(session);
  const clear = await page.evaluate(() => window.calls.time("clear", 0));
  const figures = { messages, fill, adopt, end, middle, offset, save, open, heap, clear };
  t.diagnostic(JSON.stringify(figures, (_, value: unknown) => (typeof value === "number" ? +value.toFixed(1) : value)));
  assert.deepEqual(await page.evaluate(() => window.calls.ids()), []);
  assert(end[0] < 200 && middle[0] < 200 && heap < 50_000_000);
}, 600_000);

async function setQuota(session: CDPSession, bytes: number): Promise<void> {
  const { usage } = await session.send("Storage.getUsageAndQuota", { origin: ORIGIN });
  await session.send("Storage.overrideQuotaForOrigin", { origin: ORIGIN, quotaSize: Math.ceil(usage) + bytes });
}

async function heapOf(session: CDPSession): Promise<number> {
  await session.send("HeapProfiler.collectGarbage");
  return (await session.send("Runtime.getHeapUsage")).usedSize;
}
