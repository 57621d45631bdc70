import { describe, expect } from "vitest";
import { ban, expectRefusal, IDS_IN_ORDER, oderIdsOf, room, shuffled, test, user } from "./support.js";

describe("saveBan", () => {
  test("a second ban of the user replaces the first", async ({ database }) => {
    await database.saveBan(ban("eve", { reason: "spam", bannedBy: "ada" }));
    await database.saveBan(ban("eve", { timestamp: 2, metadata: { a: 1 } }));
    expect(await database.getBansForRoom("home")).toEqual([ban("eve", { timestamp: 2, metadata: { a: 1 } })]);
  });

  test("neither the room nor the user need be stored", async ({ database }) => {
    await database.saveBan(ban("😀", { roomId: "😀" }));
    expect(await database.isUserBanned("😀", "😀")).toBe(true);
  });

  test("a ban without a room is refused", async ({ database }) => {
    await expectRefusal(database.saveBan(ban("eve", { roomId: "" })), "invalid", "$.payload.ban.roomId");
  });
});

describe("removeBan", () => {
  test("it lifts the ban from that room only", async ({ database }) => {
    await database.saveBan(ban("eve"));
    await database.saveBan(ban("eve", { roomId: "work" }));
    await database.removeBan("home", "eve");
    await database.removeBan("home", "eve");
    expect(await database.isUserBanned("eve", "home")).toBe(false);
    expect(await database.isUserBanned("eve", "work")).toBe(true);
  });

  test("the other id of the user does not lift it", async ({ database }) => {
    await database.saveBan(ban("eve", { userId: "id-eve" }));
    await database.removeBan("home", "id-eve");
    expect(await database.isUserBanned("eve", "home")).toBe(true);
  });
});

describe("getBansForRoom", () => {
  test("the order is timestamp, bytes of the oderId", async ({ database }) => {
    for (const oderId of shuffled(IDS_IN_ORDER)) await database.saveBan(ban(oderId, { timestamp: 2 }));
    await database.saveBan(ban("x", { timestamp: 1 }));
    await database.saveBan(ban("elsewhere", { roomId: "work" }));
    expect(oderIdsOf(await database.getBansForRoom("home"))).toEqual(["x", ...IDS_IN_ORDER]);
  });

  test("bans that ran out are left out", async ({ database }) => {
    await database.saveBan(ban("eve", { expiresAt: Date.now() - 1 }));
    await database.saveBan(ban("mal", { expiresAt: Date.now() + 60_000 }));
    expect(oderIdsOf(await database.getBansForRoom("home"))).toEqual(["mal"]);
  });

  test("pages go on after the last one", async ({ database }) => {
    for (const oderId of ["a", "b", "c"]) await database.saveBan(ban(oderId));
    expect(oderIdsOf(await database.getBansForRoom("home", { limit: 2 }))).toEqual(["a", "b"]);
    const after = { timestamp: 1, oderId: "b" };
    expect(oderIdsOf(await database.getBansForRoom("home", { limit: 2, after }))).toEqual(["c"]);
  });

  test("members may go, their bans stay", async ({ database }) => {
    await database.saveUser(user("eve"));
    await database.saveRoom(room("home", { members: [{ oderId: "eve" }] }));
    await database.saveBan(ban("eve"));
    await database.saveRoom(room("home", { members: [] }));
    expect(await database.getBansForRoom("home")).toHaveLength(1);
  });
});

describe("isUserBanned", () => {
  test("it compares the oderId and the userId of bans", async ({ database }) => {
    await database.saveBan(ban("eve", { userId: "id-eve" }));
    expect(await database.isUserBanned("eve", "home")).toBe(true);
    expect(await database.isUserBanned("id-eve", "home")).toBe(true);
    expect(await database.isUserBanned("id-eve", "work")).toBe(false);
    expect(await database.isUserBanned("bo", "home")).toBe(false);
  });

  test("a ban runs out by itself", async ({ database }) => {
    await database.saveBan(ban("eve", { expiresAt: Date.now() + 1_500 }));
    expect(await database.isUserBanned("eve", "home")).toBe(true);
    await expect.poll(() => database.isUserBanned("eve", "home"), { timeout: 10_000 }).toBe(false);
    expect(await database.getBansForRoom("home")).toEqual([]);
  });
});
