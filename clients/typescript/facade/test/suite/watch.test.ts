import type { Message } from "backscroll/language";
import { describe, expect, vi } from "vitest";
import type { Readable } from "../../src/index.js";
import { ban, DELETED_TEXT, idsOf, message, newAccount, openWindow, reaction, room, test, user } from "./support.js";

/** Subscribe, and collect each value that is told of. */
function follow<T>(readable: Readable<T>): { values: T[]; end: () => void } {
  const values: T[] = [];
  const end = readable.subscribe(() => values.push(readable.value));
  return { values, end };
}

async function until(check: () => void): Promise<void> {
  await vi.waitFor(check, { timeout: 10_000, interval: 5 });
}

describe("watch", () => {
  test("own commands are seen", async ({ database }) => {
    const live = database.watch("get-messages", { roomId: "home" });
    expect(live.value).toBeUndefined();
    follow(live);
    await until(() => {
      expect(live.value).toEqual([]);
    });
    await database.saveMessage(message("m1"));
    await database.saveReaction(reaction("m1"));
    await until(() => {
      expect(live.value).toMatchObject([{ id: "m1", reactions: [{ emoji: "👍" }] }]);
    });
    await database.deleteMessage("m1");
    await until(() => {
      expect(live.value).toMatchObject([{ id: "m1", content: DELETED_TEXT, reactions: [] }]);
    });
  });

  test("another window's commands are seen", async ({ database, account }) => {
    const other = await openWindow();
    await other.initialize(account);
    const live = database.watch("get-message-page", { roomId: "home", limit: 10 });
    follow(live);
    await until(() => {
      expect(live.value?.messages).toEqual([]);
    });
    await other.saveMessage(message("m1"));
    await until(() => {
      expect(idsOf(live.value?.messages ?? [])).toEqual(["m1"]);
    });
    await other.clearAllData();
    await until(() => {
      expect(live.value?.messages).toEqual([]);
    });
  });

  test("each kind of query follows what it reads", async ({ database }) => {
    const rooms = database.watch("get-all-rooms", {});
    const members = database.watch("get-users-by-room", { roomId: "home" });
    const current = database.watch("get-current-user", {});
    const banned = database.watch("is-user-banned", { userId: "eve", roomId: "home" });
    for (const live of [rooms, members, current, banned]) live.subscribe(() => undefined);
    await until(() => {
      expect([rooms.value, members.value, current.value, banned.value]).toEqual([[], [], null, false]);
    });
    await database.saveRoom(room("home", { members: [{ oderId: "ada" }] }));
    await database.saveUser(user("ada"));
    await database.setCurrentUserId("ada");
    await database.saveBan(ban("eve"));
    await until(() => {
      expect(rooms.value).toHaveLength(1);
      expect(members.value).toEqual([user("ada")]);
      expect(current.value).toEqual(user("ada"));
      expect(banned.value).toBe(true);
    });
  });

  test("a burst ends in the newest result", async ({ database, account }) => {
    const other = await openWindow();
    await other.initialize(account);
    const live = database.watch("get-messages", { roomId: "home", limit: 500 });
    const { values } = follow(live);
    await Promise.all(
      Array.from({ length: 200 }, (_, index) => other.saveMessage(message(`m${String(index).padStart(3, "0")}`))),
    );
    await until(() => {
      expect(live.value).toHaveLength(200);
    });
    const lengths = values.map((each) => each?.length ?? 0);
    expect(lengths).toEqual([...lengths].sort((one, two) => one - two)); // never an older one after a newer one
  });

  test("what is elsewhere changes nothing", async ({ database }) => {
    const live = database.watch("get-messages", { roomId: "home" });
    const { values } = follow(live);
    await database.saveMessage(message("m1"));
    await until(() => {
      expect(live.value).toHaveLength(1);
    });
    const before = live.value;
    const told = values.length;
    await database.saveMessage(message("m2", { roomId: "work" }));
    await database.saveMessage(message("m1")); // the same again
    await database.saveUser(user("ada"));
    const settled = database.watch("get-user", { userId: "ada" });
    follow(settled);
    await until(() => {
      expect(settled.value).toEqual(user("ada"));
    });
    expect(live.value).toBe(before);
    expect(values).toHaveLength(told);
  });

  test("after a switch it shows the other account", async ({ database, account }) => {
    const other = newAccount();
    await database.saveMessage(message("m1", { content: account }));
    const live = database.watch("get-messages", { roomId: "home" });
    const { values } = follow(live);
    await until(() => {
      expect(live.value).toHaveLength(1);
    });
    const switching = database.switchScope(other);
    expect(live.value).toBeUndefined();
    await switching;
    await database.saveMessage(message("m1", { content: other }));
    await until(() => {
      expect(live.value).toMatchObject([{ content: other }]);
    });
    const contents = values.map((each: Message[] | undefined) => each?.[0]?.content);
    expect(contents.slice(contents.lastIndexOf(account) + 1)).not.toContain(account);
    expect(contents[contents.lastIndexOf(account) + 1]).toBeUndefined();
  });

  test("an error leaves the value, and says why", async ({ database }) => {
    const live = database.watch("get-message-page", { roomId: "home", around: "m1" });
    follow(live);
    await until(() => {
      expect(live.error.value).toMatchObject({ code: "not-found" });
    });
    await database.saveMessage(message("m1"));
    await until(() => {
      expect(idsOf(live.value?.messages ?? [])).toEqual(["m1"]);
      expect(live.error.value).toBeUndefined();
    });
  });

  test("only queries about stored items can be watched", ({ database }) => {
    // @ts-expect-error a command is no query
    expect(() => database.watch("save-message", { message: message("m1") })).toThrow("watch takes a query");
  });
});
