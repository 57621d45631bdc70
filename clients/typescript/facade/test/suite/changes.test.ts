import { describe, expect } from "vitest";
import { ban, message, newAccount, openWindow, reaction, room, test, user } from "./support.js";

describe("getChanges", () => {
  test("changes follow a cursor, with what is stored now", async ({ database }) => {
    const { cursor } = await database.getChanges({ after: "now" });
    await database.saveMessage(message("m1", { content: "old" }));
    await database.updateMessage("m1", { content: "new" });
    await database.saveRoom(room("home"));
    const page = await database.getChanges({ after: cursor });
    expect(page.more).toBe(false);
    expect(page.changes).toMatchObject([
      { noun: "message", id: "m1", roomId: "home", value: { content: "new" } },
      { noun: "room", id: "home", value: { name: "Room home" } },
    ]);
    expect((await database.getChanges({ after: page.cursor })).changes).toEqual([]);
  });

  test("each kind of item has its noun", async ({ database }) => {
    const { cursor } = await database.getChanges({ after: "now" });
    await database.saveReaction(reaction("m1"));
    await database.saveMessage(message("m1"));
    await database.saveReaction(reaction("m1", { emoji: "🎉" }));
    await database.saveUser(user("ada"));
    await database.setCurrentUserId("ada");
    await database.saveBan(ban("eve"));
    await database.removeBan("home", "eve");
    const { changes } = await database.getChanges({ after: cursor, values: false });
    const told = changes.map(({ noun, id, roomId, gone }) => [noun, id, roomId, gone]);
    expect(told.filter(([noun]) => noun !== "message")).toEqual([
      ["user", "ada", undefined, undefined],
      ["current-user", "ada", undefined, undefined],
      ["ban", "eve", "home", true],
    ]);
    expect(told.filter(([noun]) => noun === "message")).toContainEqual(["message", "m1", "home", undefined]);
  });

  test("a removed item is gone, a deleted message is not", async ({ database }) => {
    await database.saveMessage(message("m1"));
    const { cursor } = await database.getChanges({ after: "now" });
    await database.deleteMessage("m1");
    await database.clearRoomMessages("home");
    const { changes } = await database.getChanges({ after: cursor });
    expect(changes.at(-1)).toMatchObject({ noun: "message", roomId: "home", gone: true });
  });

  test("rooms and nouns choose", async ({ database }) => {
    const { cursor } = await database.getChanges({ after: "now" });
    await database.saveMessage(message("m1"));
    await database.saveMessage(message("m2", { roomId: "work" }));
    await database.saveRoom(room("work"));
    const idsOf = async (query: object): Promise<(string | undefined)[]> =>
      (await database.getChanges({ after: cursor, ...query })).changes.map(({ id }) => id);
    expect(await idsOf({ rooms: ["work"] })).toEqual(["m2", "work"]);
    expect(await idsOf({ rooms: ["work"], nouns: ["message"] })).toEqual(["m2"]);
    expect(await idsOf({ nouns: ["room"] })).toEqual(["work"]);
  });

  test("pages say whether more follow", async ({ database }) => {
    const { cursor } = await database.getChanges({ after: "now" });
    for (const id of ["m1", "m2", "m3"]) await database.saveMessage(message(id));
    const ids: (string | undefined)[] = [];
    let page = await database.getChanges({ after: cursor, limit: 1 });
    for (; page.more; page = await database.getChanges({ after: page.cursor, limit: 1 })) {
      ids.push(...page.changes.map(({ id }) => id));
    }
    ids.push(...page.changes.map(({ id }) => id));
    expect(ids).toEqual(["m1", "m2", "m3"]);
  });

  test("a cursor of another history is a gap", async ({ database }) => {
    await database.saveMessage(message("m1"));
    const { cursor } = await database.getChanges({ after: "now" });
    const other = await openWindow();
    await other.initialize(newAccount());
    await other.saveMessage(message("m1"));
    const page = await other.getChanges({ after: cursor });
    expect(page).toMatchObject({ gap: true, changes: [] });
    await other.saveMessage(message("m2"));
    expect((await other.getChanges({ after: page.cursor })).changes).toMatchObject([{ id: "m2" }]);
  });

  test("a cursor that nobody gave is refused", async ({ database }) => {
    await expect(database.getChanges({ after: "x" })).rejects.toMatchObject({ code: "invalid" });
  });
});
