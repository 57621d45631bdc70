/** How the example looks, and whether it can be used by those who cannot see it: axe's rules in every state. */

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import axe from "axe-core";
import type { Page } from "playwright-core";
import { act, allSaved, createRoom, fill, message, send, switchAccount } from "./actions.js";
import { daemonPid } from "./processes.js";
import { SCREENSHOTS, start, variants } from "./support.js";

const SCHEMES = ["light", "dark"] as const;
const problems: string[] = [];
mkdirSync(SCREENSHOTS, { recursive: true });

void describe("the page", { skip: !variants.includes("browser") }, () => {
  void test("looks well, and keeps the rules of accessibility", async (t) => {
    const { open } = await start(t, "browser", { width: 1_000, height: 640 });
    const page = await open();
    await page.getByRole("heading", { name: "Who are you?" }).waitFor();
    await check(page, "accounts");
    await page.getByRole("button", { name: "Ada" }).click();
    await page.getByText("No rooms yet").waitFor();
    await check(page, "empty");
    await page.setViewportSize({ width: 360, height: 640 });
    await page.getByRole("button", { name: "Create a room" }).waitFor();
    await check(page, "narrow-empty");
    await page.setViewportSize({ width: 1_000, height: 640 });
    await page.getByRole("button", { name: "New room" }).click();
    await check(page, "new-room");
    await page.keyboard.press("Escape");
    await createRoom(page, "Choir");
    await check(page, "empty-room");
    await createRoom(page, "Lake house, summer");
    await page.getByRole("button", { name: "Fill with sample messages" }).click();
    await check(page, "fill");
    await page.keyboard.press("Escape");
    await fill(page, 400);
    await check(page, "long-room");

    await send(page, "Does Thursday at seven work for everybody?\nI can bring the projector.");
    await send(page, "Never mind, wrong room");
    await send(page, "And we need somebody who has a car");
    await allSaved(page);
    await act(page, "Thursday at seven", "React with 👍");
    await act(page, "Thursday at seven", "React with 🎉");
    await act(page, "wrong room", "Delete");
    await check(page, "delete");
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await act(page, "has a car", "Edit");
    await page.getByRole("textbox", { name: "Edit message" }).fill("And we need somebody who has a big car");
    await check(page, "editing");
    await page.keyboard.press("Enter");
    await act(page, "Thursday at seven", "Reply");
    await check(page, "replying");
    await send(page, "It does for me");
    await allSaved(page);
    await page.getByRole("heading", { level: 2 }).hover();
    await message(page, "Message deleted").last().waitFor();
    await check(page, "reactions-edited-deleted");
    await message(page, "big car").hover();
    await check(page, "actions");
    await page.getByRole("button", { name: "switch account" }).click();
    await check(page, "switch-account");
    await page.keyboard.press("Escape");

    await page.setViewportSize({ width: 360, height: 640 });
    await message(page, "It does for me").waitFor();
    await check(page, "narrow-room");
    await page.getByRole("button", { name: "Rooms" }).click();
    await page.getByRole("navigation", { name: "Rooms" }).waitFor();
    await check(page, "narrow-rooms");
    await page.getByRole("button", { name: "Choir" }).click();
    await page.getByRole("heading", { name: "Choir" }).waitFor();
    await page.setViewportSize({ width: 1_000, height: 640 });
    await switchAccount(page, "Bo Okafor");
    assert.deepEqual(problems, []);
  });
});

void describe("the page", { skip: !variants.includes("desktop") }, () => {
  void test("says that it is reconnecting", async (t) => {
    const { open, dataDir } = await start(t, "desktop", { width: 1_000, height: 640 });
    const page = await open("ada");
    await createRoom(page, "Choir");
    await send(page, "Before the storm");
    await allSaved(page);
    const pid = daemonPid(dataDir);
    process.kill(pid, "SIGSTOP");
    await send(page, "Can you hear me?");
    await page.getByText("Sending…").waitFor();
    await check(page, "sending");
    process.kill(pid, "SIGKILL");
    await page.getByText("Reconnecting…").waitFor();
    await page.screenshot({ path: join(SCREENSHOTS, "reconnecting-dark.png") });
    await allSaved(page);
    assert.deepEqual(problems, []);
  });
});

/** Check a state of the page in both colour schemes, and take its pictures. */
async function check(page: Page, name: string): Promise<void> {
  for (const colorScheme of SCHEMES) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.evaluate(axe.source);
    const found = await page.evaluate(async () => {
      const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run();
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(", ")}`);
    });
    await page.screenshot({ path: join(SCREENSHOTS, `${name}-${colorScheme}.png`) });
    problems.push(...found.map((problem) => `${name}, ${colorScheme}: ${problem}`));
  }
}
