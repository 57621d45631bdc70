import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Client } from "backscroll";
import type { Page } from "playwright-core";
import { allSaved, createRoom, send } from "./actions.js";
import { daemonPid } from "./processes.js";
import { start, variants } from "./support.js";

const KILLS = 3;
const SENT_BEFORE_EACH = 5;
const SENT_WHILE_AWAY = 3;

void describe("in the desktop variant", { skip: !variants.includes("desktop") }, () => {
  void test("a killed daemon loses and doubles nothing", async (t) => {
    const { open, dataDir } = await start(t, "desktop");
    const page = await open("ada");
    await createRoom(page, "Storm");
    const sent: string[] = [];
    const sendSome = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index += 1) {
        const text = `Message ${String(sent.length + 1)}`;
        sent.push(text);
        await send(page, text);
      }
    };
    for (let kill = 0; kill < KILLS; kill += 1) {
      await sendSome(SENT_BEFORE_EACH);
      const pid = daemonPid(dataDir);
      process.kill(pid, "SIGSTOP"); // it takes nothing of what is sent next
      await sendSome(SENT_WHILE_AWAY);
      process.kill(pid, "SIGKILL");
      await page.getByText("Reconnecting…").waitFor();
      await sendSome(SENT_WHILE_AWAY);
      await page.getByText("Reconnecting…").waitFor({ state: "detached" });
      await allSaved(page);
      assert.notEqual(daemonPid(dataDir), pid);
    }
    assert.deepEqual(await textsOf(page), sent);
    assert.deepEqual(await storedIn(dataDir), sent);
    await page.reload();
    await page.getByText(sent.at(-1) ?? "").waitFor();
    assert.deepEqual(await textsOf(page), sent);
  });

  void test("what is written in a room that cannot be read yet is shown and saved", async (t) => {
    const { open, dataDir } = await start(t, "desktop");
    const page = await open("ada");
    await createRoom(page, "Calm");
    await createRoom(page, "Storm");
    const pid = daemonPid(dataDir);
    process.kill(pid, "SIGSTOP");
    await page.getByRole("button", { name: "Calm" }).click();
    await page.getByRole("heading", { name: "Calm" }).waitFor();
    await send(page, "Is anybody there?");
    await page.getByText("Sending…").waitFor();
    process.kill(pid, "SIGKILL");
    await allSaved(page);
    assert.deepEqual(await storedIn(dataDir), ["Is anybody there?"]);
  });

  void test("a window says that the application was closed", async (t) => {
    const { open, end } = await start(t, "desktop");
    const page = await open("ada");
    await createRoom(page, "Storm");
    await send(page, "Before it");
    await allSaved(page);
    await end();
    await page.getByRole("alert").getByText("The application was closed: start it again").waitFor();
    await send(page, "After it");
    await page.getByText("Not sent: the application was closed").waitFor();
    assert.equal(await page.getByText("Reconnecting…").count(), 0);
    assert.equal(await page.getByText("Sending…").count(), 0);
    await page.getByRole("button", { name: "switch account" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Bo Okafor" }).click();
    await page.getByText("cannot be opened: the application was closed").waitFor();
  });

  void test("no other page or program may connect", async (t) => {
    const { url } = await start(t, "desktop");
    const { origin, host, hash } = new URL(url);
    const token = new URLSearchParams(hash.slice(1)).get("token") ?? "";
    const address = `ws://${host}/bridge?token=`;
    assert.equal(await connect(address + token, origin), "open");
    assert.equal(await connect(address + token, "http://127.0.0.1:1"), "refused");
    assert.equal(await connect(address + token, undefined), "refused");
    assert.equal(await connect(`${address}${token.slice(1)}x`, origin), "refused");
    assert.equal(await connect(`ws://${host}/bridge`, origin), "refused");
    assert.equal(await connect(`ws://${host}/?token=${token}`, origin), "refused");
  });
});

/** The texts of the messages in a window: all, as it is scrolled to the oldest one and down again. */
async function textsOf(page: Page): Promise<string[]> {
  await page.bringToFront();
  const seen = new Map<number, string>();
  const read = async (): Promise<void> => {
    const rows = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>("article")].map((article) => ({
        index: Number(article.dataset["index"]),
        text: article.querySelector(".text")?.textContent ?? "",
      })),
    );
    for (const { index, text } of rows) seen.set(index, text);
  };
  await read();
  while (!seen.has(0)) {
    await page.locator(".scroller").hover();
    await page.mouse.wheel(0, -300);
    await page.evaluate(() => new Promise(requestAnimationFrame));
    await read();
  }
  return [...seen].sort(([one], [other]) => one - other).map(([, text]) => text);
}

/** The texts of all messages that the daemon has stored. */
async function storedIn(dataDir: string): Promise<string[]> {
  const client = new Client({ dataDir, scope: "ada" });
  try {
    const rooms = await client.getAllRooms();
    const pages = await Promise.all(rooms.map(({ id }) => client.getMessagePage({ roomId: id, limit: 500 })));
    return pages.flatMap(({ messages }) => messages.map(({ content }) => content));
  } finally {
    client.close();
  }
}

async function connect(address: string, origin: string | undefined): Promise<"open" | "refused"> {
  const { WebSocket } = await import("ws");
  const socket = new WebSocket(address, origin === undefined ? {} : { origin });
  return new Promise((resolve) => {
    socket.once("open", () => {
      resolve("open");
      socket.close();
    });
    socket.once("error", () => {
      resolve("refused");
    });
  });
}
