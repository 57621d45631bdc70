/** Runs histories on IndexedDB in Chromium. */

import { fileURLToPath } from "node:url";
import {
  CallerError,
  DaemonError,
  type OperationName,
  type Results,
  type Store,
  type StoreEvent,
  type StoreRequest,
} from "backscroll/language";
import { build } from "esbuild";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright";
import type { Runner } from "./compare.js";
import type { Reply } from "./page.js";
import type { Outcome } from "./steps.js";
import type { Tabs } from "./tabs.js";

const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const ADDRESS = "http://localhost/";
const ENTRY = fileURLToPath(new URL("page.ts", import.meta.url));

/** A Chromium with nothing stored, until `stop`. */
export class Chromium {
  readonly #browser: Browser;
  readonly #context: BrowserContext;
  #names = 0;

  private constructor(browser: Browser, context: BrowserContext) {
    this.#browser = browser;
    this.#context = context;
  }

  static async start(): Promise<Chromium> {
    const { outputFiles } = await build({ entryPoints: [ENTRY], bundle: true, format: "iife", write: false });
    const body = `<!doctype html><script>${outputFiles[0]?.text ?? ""}</script>`;
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
    const context = await browser.newContext();
    await context.route(ADDRESS, (route) => route.fulfill({ contentType: "text/html; charset=utf-8", body }));
    return new Chromium(browser, context);
  }

  async stop(): Promise<void> {
    await this.#browser.close();
  }

  /** A page of the same origin as all others. */
  async openPage(): Promise<Page> {
    const page = await this.#context.newPage();
    await page.goto(ADDRESS);
    return page;
  }

  /** Runs each history in an account of its own. */
  async runner(): Promise<Runner> {
    const page = await this.openPage();
    return async (history, pools) => {
      const text = await page.evaluate(([each, ids]) => window.calls.runHistory(each, ids), [history, pools] as const);
      return JSON.parse(text) as Outcome[];
    };
  }

  /** Tabs of their own: pages with a store each, over the same databases. */
  tabs(): Tabs {
    const name = `tabs-${String((this.#names += 1))}`;
    const pages: Page[] = [];
    return {
      openTab: async (account) => {
        const page = await this.openPage();
        pages.push(page);
        return openStore(page, name, account);
      },
      close: async () => {
        for (const page of pages) await page.close();
      },
    };
  }
}

/** The store of a page, called from here. */
async function openStore(page: Page, name: string, account: string): Promise<Store> {
  const listeners = new Set<(event: StoreEvent) => void>();
  await page.exposeFunction("tell", (event: StoreEvent) => {
    for (const listener of listeners) listener(event);
  });
  await page.evaluate((each) => {
    window.calls.openStore(each);
  }, name);
  const call = async <Name extends OperationName>({ type, payload }: StoreRequest<Name>): Promise<Results[Name]> =>
    resultOf(
      await page.evaluate(([one, other]) => window.calls.call(one, other), [type, payload] as const),
    ) as Results[Name];
  const store: Store = {
    switchScope: async (scope) => {
      resultOf(await page.evaluate((each) => window.calls.switchScope(each), scope));
    },
    command: call,
    query: call,
    subscribe: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  await store.switchScope(account);
  return store;
}

function resultOf(text: string): unknown {
  const reply = JSON.parse(text) as Reply;
  if (reply.ok) return reply.result;
  const ErrorClass = reply.isCaller ? CallerError : DaemonError;
  throw new ErrorClass(reply.message, { code: reply.code, details: reply.details });
}
