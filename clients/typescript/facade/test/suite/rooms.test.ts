import { describe, expect } from "vitest";
import {
  attachment,
  ban,
  expectRefusal,
  IDS_IN_ORDER,
  idsOf,
  message,
  oderIdsOf,
  reaction,
  room,
  shuffled,
  test,
} from "./support.js";

const CHANNELS = [
  { id: "general", name: "general", type: "text", position: 0 },
  { id: "v", name: "V", type: "voice", position: 1, topic: "talk" },
];
const MEMBERS = [
  { oderId: "ada", joinedAt: 1, roleIds: ["r-1"] },
  { oderId: "bo", joinedAt: 2 },
];
const CATEGORIES = [{ id: "talk", name: "Talk", position: 0 }];
const FULL = { channels: CHANNELS, members: MEMBERS, categories: CATEGORIES, createdAt: 1 };

describe("saveRoom", () => {
  test("a room is read with its lists", async ({ database }) => {
    await database.saveRoom(room("home", { ...FULL, topic: "t", permissions: { a: true }, roles: [1, "x", null] }));
    const expected = room("home", { ...FULL, topic: "t", permissions: { a: true }, roles: [1, "x", null] });
    expect(await database.getRoom("home")).toEqual(expected);
  });

  test("listed items replace, a list left out stays", async ({ database }) => {
    await database.saveRoom(room("home", FULL));
    await database.saveRoom(room("home", { channels: CHANNELS.slice(1), categories: [], members: null }));
    expect(await database.getRoom("home")).toEqual(room("home", { channels: CHANNELS.slice(1), members: MEMBERS }));
  });

  test("a channel id may exist in several rooms", async ({ database }) => {
    await database.saveRoom(room("home", FULL));
    await database.saveRoom(room("work", FULL));
    await database.saveRoom(room("home", { channels: [] }));
    expect((await database.getRoom("work"))?.channels).toEqual(CHANNELS);
  });

  test("two items with one key are refused", async ({ database }) => {
    const twice = room("home", { members: [{ oderId: "ada" }, { oderId: "ada" }] });
    await expectRefusal(database.saveRoom(twice), "invalid", "$.payload.room.members[1]");
    expect(await database.getRoom("home")).toBeNull();
  });
});

describe("getRoom", () => {
  test("channels and members are there, categories if any", async ({ database }) => {
    await database.saveRoom(room("home"));
    expect(await database.getRoom("home")).toEqual(room("home", { channels: [], members: [] }));
  });

  test("its lists are in their orders", async ({ database }) => {
    const channels = shuffled(IDS_IN_ORDER).map((id) => ({ id, name: id, type: "text", position: 1 }));
    channels.push({ id: "x", name: "first", type: "text", position: 0 });
    const members = shuffled(IDS_IN_ORDER).map((oderId) => ({ oderId, joinedAt: 1 }));
    await database.saveRoom(room("home", { channels, members: [...members, { oderId: "without a time" }] }));
    const found = await database.getRoom("home");
    expect(idsOf(found?.channels ?? [])).toEqual(["x", ...IDS_IN_ORDER]);
    expect(oderIdsOf(found?.members ?? [])).toEqual(["without a time", ...IDS_IN_ORDER]);
  });

  test("childLists: false leaves its lists out", async ({ database }) => {
    await database.saveRoom(room("home", FULL));
    expect(await database.getRoom("home", { childLists: false })).toEqual(room("home", { createdAt: 1 }));
  });

  test("an unknown room is null", async ({ database }) => {
    expect(await database.getRoom("home")).toBeNull();
  });
});

describe("getAllRooms", () => {
  test("the order is createdAt, then the bytes of the id", async ({ database }) => {
    for (const id of shuffled(IDS_IN_ORDER)) await database.saveRoom(room(id, { createdAt: 2 }));
    await database.saveRoom(room("x", { createdAt: 1 }));
    await database.saveRoom(room("y"));
    expect(idsOf(await database.getAllRooms())).toEqual(["y", "x", ...IDS_IN_ORDER]);
  });

  test("each room has its own lists, unless left out", async ({ database }) => {
    await database.saveRoom(room("home", FULL));
    await database.saveRoom(room("work", { createdAt: 2 }));
    expect(await database.getAllRooms()).toEqual([
      room("home", FULL),
      room("work", { createdAt: 2, channels: [], members: [] }),
    ]);
    const bare = [room("home", { createdAt: 1 }), room("work", { createdAt: 2 })];
    expect(await database.getAllRooms({ childLists: false })).toEqual(bare);
  });

  test("pages go on after the last one", async ({ database }) => {
    for (const id of ["a", "b", "c"]) await database.saveRoom(room(id));
    expect(idsOf(await database.getAllRooms({ limit: 2 }))).toEqual(["a", "b"]);
    const rest = await database.getAllRooms({ limit: 2, after: { createdAt: null, id: "b" } });
    expect(idsOf(rest)).toEqual(["c"]);
  });
});

describe("deleteRoom", () => {
  test("everything of that room goes, and nothing else", async ({ database }) => {
    for (const id of ["home", "work"]) {
      await database.saveRoom(room(id, FULL));
      await database.saveMessage(message(`m-${id}`, { roomId: id, reactions: [reaction(`m-${id}`)] }));
      await database.saveAttachment(attachment(`a-${id}`, `m-${id}`));
      await database.saveBan(ban("eve", { roomId: id }));
    }
    await database.deleteRoom("home");
    await database.deleteRoom("home");
    expect(idsOf(await database.getAllRooms())).toEqual(["work"]);
    expect(await database.getMessages("home")).toEqual([]);
    expect(await database.getReactionsForMessage("m-home")).toEqual([]);
    expect(idsOf(await database.getAllAttachments())).toEqual(["a-work"]);
    expect(await database.getUsersByRoom("home")).toEqual([]);
    expect(await database.isUserBanned("eve", "home")).toBe(false);
    expect(await database.isUserBanned("eve", "work")).toBe(true);
    expect(await database.getMessages("work")).toHaveLength(1);
  });

  test("a room that is made again is empty", async ({ database }) => {
    await database.saveRoom(room("home", FULL));
    await database.deleteRoom("home");
    await database.saveRoom(room("home"));
    expect(await database.getRoom("home")).toEqual(room("home", { channels: [], members: [] }));
  });

  test("messages of a room that is not stored go too", async ({ database }) => {
    await database.saveMessage(message("m1"));
    await database.deleteRoom("home");
    expect(await database.getMessageById("m1")).toBeNull();
  });
});

describe("updateRoom", () => {
  test("left out is kept, null clears, a list replaces", async ({ database }) => {
    await database.saveRoom(room("home", { ...FULL, topic: "old", icon: "i" }));
    await database.updateRoom("home", { topic: null, maxUsers: 9, categories: null, members: MEMBERS.slice(1) });
    const expected = room("home", { icon: "i", maxUsers: 9, createdAt: 1, channels: CHANNELS });
    expect(await database.getRoom("home")).toEqual({ ...expected, members: MEMBERS.slice(1) });
  });

  test("null for a required field is refused", async ({ database }) => {
    await database.saveRoom(room("home", FULL));
    for (const field of ["name", "channels", "members"]) {
      const call = database.updateRoom("home", { [field]: null });
      await expectRefusal(call, "invalid", `$.payload.updates.${field}`);
    }
    expect(await database.getRoom("home")).toEqual(room("home", FULL));
  });

  test("an unknown room is not-found", async ({ database }) => {
    await expectRefusal(database.updateRoom("home", { name: "x" }), "not-found", "$.payload.roomId");
  });
});
