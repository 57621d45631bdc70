import { describe, expect } from "vitest";
import { appResume, type KeyValueStorage } from "../../src/index.js";
import { message, newAccount, test } from "./support.js";

/** The browser's own storage; Node has none, so there the test keeps the text itself. */
function storageOfPage(): KeyValueStorage {
  if ("localStorage" in globalThis) return localStorage;
  const items = new Map<string, string>();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  };
}

describe("appResume", () => {
  test("a start shows the page that was viewed last", async ({ database, account }) => {
    const storage = storageOfPage();
    for (const id of ["m1", "m2", "m3"]) await database.saveMessage(message(id));
    appResume(account, storage).setLastChat({ roomId: "home", messageId: "m2" });
    const chat = appResume(account, storage).chatToResume;
    expect(chat).toEqual({ roomId: "home", messageId: "m2" });
    const query = { roomId: chat?.roomId ?? "", around: chat?.messageId ?? "", limit: 1 };
    expect((await database.getMessagePage(query)).messages).toMatchObject([{ id: "m2" }]);
  });

  test("another account resumes its own chat, or none", async ({ database, account }) => {
    const storage = storageOfPage();
    const other = newAccount();
    appResume(account, storage).setLastChat({ roomId: "home" });
    appResume(account, storage).setLaunchSettings({ resumeLastChat: false });
    await database.switchScope(other);
    expect(appResume(other, storage).lastChat).toBeUndefined();
    expect(appResume(other, storage).launchSettings).toEqual({ resumeLastChat: true });
    await database.clearAllData();
    expect(appResume(account, storage).lastChat).toEqual({ roomId: "home" });
    appResume(account, storage).clear();
    expect(appResume(account, storage).lastChat).toBeUndefined();
  });
});
