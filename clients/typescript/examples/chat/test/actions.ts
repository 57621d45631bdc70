/** What a person does with the example; a window that is not in front draws only once a second. */

import type { Page } from "playwright-core";

const SCROLL_MS = 30_000;

export async function createRoom(page: Page, name: string): Promise<void> {
  await page.bringToFront();
  await page.getByRole("button", { name: "New room" }).click();
  await page.getByRole("textbox", { name: "Name" }).fill(name);
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name }).waitFor();
}

export async function fill(page: Page, count: number, timeout = 120_000): Promise<void> {
  await page.bringToFront();
  await page.getByRole("button", { name: "Fill with sample messages" }).click();
  await page.getByRole("spinbutton", { name: "Messages" }).fill(String(count));
  await page.getByRole("button", { name: "Fill", exact: true }).click();
  await page.getByRole("article").first().waitFor({ timeout });
}

export async function send(page: Page, text: string): Promise<void> {
  await page.bringToFront();
  const composer = page.getByRole("textbox", { name: "Message to" });
  await composer.fill(text);
  await composer.press("Enter");
  await message(page, text).last().waitFor();
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
  const deadline = Date.now() + SCROLL_MS;
  await page.bringToFront();
  await page.locator(".scroller").hover();
  while (!(await isThere())) {
    if (Date.now() > deadline) throw new Error("scrolling did not lead there in time");
    await page.mouse.wheel(0, pixels);
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
}
