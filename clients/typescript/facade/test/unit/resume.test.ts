import { describe, expect, test } from "vitest";
import { appResume, type KeyValueStorage } from "../../src/index.js";

class MapStorage implements KeyValueStorage {
  readonly items = new Map<string, string>();

  getItem(key: string): string | null {
    return this.items.get(key) ?? null;
  }

  setItem(key: string, value: string): void {
    this.items.set(key, value);
  }

  removeItem(key: string): void {
    this.items.delete(key);
  }
}

function refuse(): never {
  throw new DOMException("the quota is exceeded", "QuotaExceededError");
}

const PLACE = { roomId: "home", channelId: "general", messageId: "m1", cursor: "c" };

describe("appResume", () => {
  test("what was viewed last is there after a restart", () => {
    const storage = new MapStorage();
    expect(appResume("ada", storage).chatToResume).toBeUndefined();
    expect(appResume("ada", storage).setLastChat(PLACE)).toBe(true);
    expect(appResume("ada", storage).lastChat).toEqual(PLACE);
    expect(appResume("ada", storage).chatToResume).toEqual(PLACE);
    appResume("ada", storage).setLastChat({ roomId: "work" });
    expect(appResume("ada", storage).lastChat).toEqual({ roomId: "work" });
    appResume("ada", storage).setLastChat(undefined);
    expect(appResume("ada", storage).lastChat).toBeUndefined();
  });

  test("the settings decide what is resumed", () => {
    const resume = appResume("ada", new MapStorage());
    expect(resume.launchSettings).toEqual({ resumeLastChat: true });
    resume.setLastChat(PLACE);
    resume.setLaunchSettings({ resumeLastChat: false });
    expect(resume.chatToResume).toBeUndefined();
    expect(resume.lastChat).toEqual(PLACE);
    resume.setLaunchSettings({});
    expect(resume.launchSettings).toEqual({ resumeLastChat: false });
  });

  test("each user has keys of their own", () => {
    const storage = new MapStorage();
    const users = ["ada", "ada/last-chat", "", "__proto__", "😀", "backscroll/last-chat/ada"];
    for (const user of users) appResume(user, storage).setLastChat({ roomId: `room of ${user}` });
    for (const user of users) expect(appResume(user, storage).lastChat).toEqual({ roomId: `room of ${user}` });
    appResume("ada", storage).clear();
    expect(appResume("ada", storage).lastChat).toBeUndefined();
    expect(appResume("😀", storage).lastChat).toEqual({ roomId: "room of 😀" });
  });

  test("broken and foreign JSON is as if nothing was stored", () => {
    const storage = new MapStorage();
    const resume = appResume("ada", storage);
    resume.setLastChat(PLACE);
    resume.setLaunchSettings({ resumeLastChat: false });
    for (const text of [
      "{",
      "",
      "null",
      "1",
      '"x"',
      "[]",
      '{"roomId":1}',
      '{"roomId":""}',
      '{"resumeLastChat":"no"}',
    ]) {
      for (const key of storage.items.keys()) storage.items.set(key, text);
      expect(resume.lastChat).toBeUndefined();
      expect(resume.launchSettings).toEqual({ resumeLastChat: true });
    }
    for (const key of storage.items.keys())
      storage.items.set(key, '{"roomId":"home","channelId":7,"cursor":null,"x":1}');
    expect(resume.lastChat).toEqual({ roomId: "home" });
  });

  test("a storage that throws or is missing forgets", () => {
    const throwing = { getItem: refuse, setItem: refuse, removeItem: refuse };
    const forbidden = Object.getOwnPropertyDescriptor(globalThis, "localStorage");
    Object.defineProperty(globalThis, "localStorage", { get: refuse, configurable: true });
    for (const resume of [appResume("ada", throwing), appResume("ada")]) {
      expect(resume.setLastChat(PLACE)).toBe(false);
      expect(resume.setLaunchSettings({ resumeLastChat: false })).toBe(false);
      expect(resume.clear()).toBe(false);
      expect(resume.chatToResume).toBeUndefined();
      expect(resume.launchSettings).toEqual({ resumeLastChat: true });
    }
    Reflect.deleteProperty(globalThis, "localStorage");
    expect(appResume("ada").setLastChat(PLACE)).toBe(false);
    if (forbidden) Object.defineProperty(globalThis, "localStorage", forbidden);
  });
});
