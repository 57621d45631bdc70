import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Page } from "playwright-core";
import { act, allSaved, createRoom, fill, message, scrollUntil, send, switchAccount, topMessage } from "./actions.js";
import { start, variants } from "./support.js";

for (const variant of variants) {
  void describe(`in the ${variant} variant`, () => {
    void test("two windows follow one another live", async (t) => {
      const { open } = await start(t, variant);
      const one = await open("ada");
      await createRoom(one, "Kitchen");
      const two = await open("ada");
      await two.getByRole("heading", { name: "Kitchen" }).waitFor(); // the last room of the account

      await send(one, "The kettle is on");
      await message(two, "The kettle is on").waitFor();
      await send(two, "Coming!");
      await message(one, "Coming!").waitFor();
      await act(two, "The kettle is on", "React with 🎉");
      await message(one, "The kettle is on").getByRole("button", { name: "🎉, 1, yours too" }).waitFor();
      await act(one, "The kettle is on", "React with 🎉");
      await message(two, "The kettle is on").getByRole("button", { name: "🎉, 1" }).waitFor({ state: "detached" });

      await act(one, "Coming!", "Edit");
      await one.getByRole("textbox", { name: "Edit message" }).fill("Coming in a minute!");
      await one.keyboard.press("Enter");
      await message(two, "Coming in a minute! (edited)").waitFor();

      await act(two, "The kettle is on", "Delete");
      await two.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
      await message(one, "Message deleted").waitFor();
      assert.equal(await message(one, "kettle").count(), 0);
      assert.equal(await one.getByRole("article").count(), 2);

      await createRoom(two, "Garden");
      await one.getByRole("button", { name: "Garden" }).waitFor();
    });

    void test("a new message is announced, and does not move the view", async (t) => {
      const { open } = await start(t, variant);
      const one = await open("ada");
      await fill(one, 300);
      const two = await open("ada");
      await scrollUntil(one, -600, () => one.getByRole("button", { name: "Newest" }).isVisible());
      const top = await topMessage(one);
      await send(two, "Hello from below");
      await one.bringToFront();
      const button = one.getByRole("button", { name: "1 new message" });
      await button.waitFor();
      assert.equal(await topMessage(one), top);
      await button.click();
      await message(one, "Hello from below").waitFor();
      await button.waitFor({ state: "detached" });
    });

    void test("an account shows nothing of another one", async (t) => {
      const { open } = await start(t, variant);
      const page = await open("ada");
      const received = receivedBy(page);
      await page.reload();
      await createRoom(page, "marker-room");
      await send(page, "marker-text");
      await act(page, "marker-text", "Edit");
      await page.getByRole("textbox", { name: "Edit message" }).fill("marker-edited");
      await page.keyboard.press("Enter");
      await message(page, "marker-edited").waitFor();
      const other = await open("ada");
      await message(other, "marker-edited").waitFor();
      const before = received.length;

      await switchAccount(page, "Bo Okafor");
      await page.getByText("No rooms yet").waitFor();
      await send(other, "marker-later");
      await message(other, "marker-later").waitFor();
      await createRoom(page, "Bo's room");
      await send(page, "Bo was here");
      await message(page, "Bo was here").waitFor();

      assert.doesNotMatch(await page.content(), /marker/);
      assert.doesNotMatch(received.slice(before).join("\n"), /marker/);
      assert.equal(received.length > before, variant === "desktop");
      const stored = await storedFor(page, "ada");
      assert.match(stored, variant === "browser" ? /Bo was here/ : /./);
      assert.doesNotMatch(stored, /marker/);

      await switchAccount(page, "Ada Lindqvist");
      await message(page, "marker-later").waitFor();
      assert.doesNotMatch(await page.content(), /Bo was here/);
    });

    void test("reloading resumes at the last room and place", async (t) => {
      const { open } = await start(t, variant);
      const page = await open("ada");
      await createRoom(page, "Another room");
      await fill(page, 1_000);
      await scrollUntil(page, -2_000, async () => ((await topMessage(page)) ?? "") < "sample-1000-000500");
      const top = await topMessage(page);
      assert.ok(top);
      await page.waitForFunction((id) => localStorage.getItem("backscroll/last-chat/ada")?.includes(id), top);
      await page.reload();
      await page.getByRole("heading", { name: "1,000" }).waitFor();
      await page.locator(`article[data-id="${top}"]`).waitFor();
      await page.waitForFunction((id) => localStorage.getItem("backscroll/last-chat/ada")?.includes(id), top);
      assert.equal(await topMessage(page), top);

      await page.getByRole("button", { name: "Newest" }).click();
      await page.locator('article[data-id="sample-1000-000999"]').waitFor();
      await page.waitForFunction(() => !localStorage.getItem("backscroll/last-chat/ada")?.includes("messageId"));
      await page.reload();
      await page.locator('article[data-id="sample-1000-000999"]').waitFor();
    });

    void test("scrolling leads to the oldest message and back", async (t) => {
      const { open } = await start(t, variant);
      const page = await open("ada");
      await fill(page, 1_000);
      let most = 0;
      const see = (id: string) => async (): Promise<boolean> => {
        const ids = await page.evaluate(() => {
          const articles = [...document.querySelectorAll<HTMLElement>("article")];
          return articles.map(({ dataset }) => dataset["id"] ?? "");
        });
        assert.deepEqual(ids, [...ids].sort(), "the messages are in their order");
        const numbers = ids.map((each) => Number(each.slice(-6)));
        assert.ok(
          numbers.every((each, index) => index === 0 || each === (numbers[index - 1] ?? 0) + 1),
          "none is left out",
        );
        most = Math.max(most, ids.length);
        return ids.includes(id);
      };
      await scrollUntil(page, -3_000, see("sample-1000-000000"));
      await scrollUntil(page, 3_000, see("sample-1000-000999"));
      assert.ok(most < 80, `${String(most)} rows were in the document`);
    });

    void test("messages that come in above do not move the view", async (t) => {
      const { open } = await start(t, variant);
      const page = await open("ada");
      await fill(page, 1_000);
      await page.evaluate(watchPlaces);
      await scrollUntil(page, -200, async () => ((await topMessage(page)) ?? "") < "sample-1000-000700");
      const jumps = await page.evaluate(() => (globalThis as unknown as { jumps: number[] }).jumps);
      assert.deepEqual(jumps, []);
    });

    void test("everything can be done with the keyboard", async (t) => {
      const { open } = await start(t, variant);
      const page = await open("ada");
      await page.getByText("No rooms yet").waitFor();
      await press(page, "Tab", "Tab", "Enter");
      await page.getByRole("dialog").waitFor();
      await page.keyboard.type("Hall");
      await press(page, "Enter");
      await page.getByRole("textbox", { name: "Message to Hall" }).waitFor();
      for (const text of ["First", "Second", "Third"]) {
        await page.keyboard.type(text);
        await press(page, "Enter");
        await message(page, text).waitFor();
      }
      await allSaved(page);
      await press(page, "ArrowUp"); // edits the last one
      await page.getByRole("textbox", { name: "Edit message" }).waitFor();
      await page.keyboard.type(" thoughts");
      await press(page, "Escape");
      await page.getByRole("textbox", { name: "Edit message" }).waitFor({ state: "detached" });
      await composerFocused(page); // where the edit was begun
      await press(page, "Shift+Tab");
      await focused(page, /^Third$/);
      await page.getByRole("article", { name: /^Ada Lindqvist, \d\d:\d\d: Third$/ }).waitFor();
      await press(page, "ArrowUp");
      await focused(page, /^Second$/);
      await press(page, "Tab", "Enter");
      await message(page, "Second").getByRole("button", { name: "👍, 1, yours too" }).waitFor();
      await press(page, "Escape");
      await focused(page, /^Second$/);
      await page.keyboard.press("End");
      await press(page, "Shift+Tab");
    });
  });
}

async function press(page: Page, ...keys: string[]): Promise<void> {
  for (const key of keys) await page.keyboard.press(key);
}

/** Wait until the text box of the room has the focus. */
async function composerFocused(page: Page): Promise<void> {
  await page.waitForFunction(() => document.activeElement?.matches(".composer textarea"));
}

/** Wait until a message has the focus. */
async function focused(page: Page, text: RegExp): Promise<void> {
  await page.waitForFunction(
    (source) => new RegExp(source).test(document.activeElement?.querySelector(".text")?.textContent ?? ""),
    text.source,
  );
}

/** Everything that a window receives from the main process, from its next page on. */
function receivedBy(page: Page): string[] {
  const received: string[] = [];
  page.on("websocket", (socket) => {
    socket.on("framereceived", ({ payload }) => received.push(payload.toString()));
  });
  return received;
}

/** All that a window stored, but for the databases of one account. */
const storedFor = (page: Page, exceptOf: string): Promise<string> =>
  page.evaluate(async (account) => {
    const done = <Result>(request: IDBRequest<Result>): Promise<Result> =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => {
          resolve(request.result);
        };
        request.onerror = () => {
          reject(new Error(request.error?.message));
        };
      });
    const found: unknown[] = [localStorage, sessionStorage].map((storage) => Object.entries(storage));
    for (const { name = "" } of await indexedDB.databases()) {
      if (name.includes(account)) continue;
      const database = await done(indexedDB.open(name));
      for (const store of database.objectStoreNames) {
        found.push(name, store, await done(database.transaction(store).objectStore(store).getAll()));
      }
      database.close();
    }
    return JSON.stringify(found);
  }, exceptOf);

/** In the page: note each frame in which rows in view moved otherwise than down, although the wheel turns up. */
function watchPlaces(): void {
  const jumps: number[] = [];
  (globalThis as unknown as { jumps: number[] }).jumps = jumps;
  const view = document.querySelector(".scroller")?.getBoundingClientRect() ?? new DOMRect();
  let before = new Map<string, number>();
  const look = (): void => {
    const now = new Map<string, number>();
    for (const article of document.querySelectorAll<HTMLElement>("article")) {
      const { top, bottom } = article.getBoundingClientRect();
      if (bottom > view.top && top < view.bottom) now.set(article.dataset["id"] ?? "", top);
    }
    const moves = [...now].flatMap(([id, top]) => (before.has(id) ? [top - (before.get(id) ?? 0)] : []));
    const least = Math.min(...moves);
    if (before.size > 0 && (moves.length === 0 || least < -1)) jumps.push(least);
    before = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
