import { describe, expect } from "vitest";
import { expectRefusal, IDS_IN_ORDER, oderIdsOf, room, shuffled, test, user } from "./support.js";

describe("saveUser", () => {
  test("a second save replaces every field of the first", async ({ database }) => {
    await database.saveUser(user("ada", { displayName: "Ada", status: "away", metadata: { a: [1] }, isOnline: true }));
    await database.saveUser(user("ada", { username: "ada2", displayName: null }));
    expect(await database.getUser("ada")).toEqual(user("ada", { username: "ada2" }));
  });

  test("a public key belongs to one user", async ({ database }) => {
    await database.saveUser(user("ada", { pubkey: "key" }));
    await expectRefusal(database.saveUser(user("bo", { pubkey: "key" })), "conflict", "$.payload.user.pubkey");
    await database.saveUser(user("ada", { pubkey: "key", displayName: "Ada" }));
    expect(await database.getUser("bo")).toBeNull();
  });

  test("a user without a name is refused", async ({ database }) => {
    const nameless = { oderId: "ada", id: "1" } as never;
    await expect(database.saveUser(nameless)).rejects.toMatchObject({ code: "invalid" });
    await expectRefusal(database.saveUser(user("")), "invalid", "$.payload.user.oderId");
  });
});

describe("getUser", () => {
  test("the oderId is looked for first, then the id", async ({ database }) => {
    await database.saveUser(user("ada", { id: "bo" }));
    expect((await database.getUser("bo"))?.oderId).toBe("ada");
    await database.saveUser(user("bo"));
    expect((await database.getUser("bo"))?.oderId).toBe("bo");
  });

  test("an unknown user is null", async ({ database }) => {
    expect(await database.getUser("ada")).toBeNull();
    expect(await database.getUser("constructor")).toBeNull();
  });

  test("ids are any text, emoji beyond the BMP too", async ({ database }) => {
    for (const id of IDS_IN_ORDER) await database.saveUser(user(id));
    for (const id of IDS_IN_ORDER) expect(await database.getUser(`id-${id}`)).toEqual(user(id));
  });
});

describe("getCurrentUser", () => {
  test("it is null while none is set", async ({ database }) => {
    await database.saveUser(user("ada"));
    expect(await database.getCurrentUser()).toBeNull();
  });

  test("it is null until the user is stored", async ({ database }) => {
    await database.setCurrentUserId("ada");
    expect(await database.getCurrentUser()).toBeNull();
    await database.saveUser(user("ada"));
    expect(await database.getCurrentUser()).toEqual(user("ada"));
  });
});

describe("setCurrentUserId", () => {
  test("the oderId and the id name a user, null nobody", async ({ database }) => {
    await database.saveUser(user("ada"));
    await database.saveUser(user("bo"));
    await database.setCurrentUserId("ada");
    expect((await database.getCurrentUser())?.oderId).toBe("ada");
    await database.setCurrentUserId("id-bo");
    expect((await database.getCurrentUser())?.oderId).toBe("bo");
    await database.setCurrentUserId(null);
    expect(await database.getCurrentUser()).toBeNull();
  });

  test("an empty id is refused", async ({ database }) => {
    await expectRefusal(database.setCurrentUserId(""), "invalid", "$.payload.userId");
  });
});

describe("getUsersByRoom", () => {
  test("members are users, ordered by the bytes of oderIds", async ({ database }) => {
    const members = shuffled(IDS_IN_ORDER).map((oderId, joinedAt) => ({ oderId, joinedAt }));
    await database.saveRoom(room("home", { members }));
    expect(oderIdsOf(await database.getUsersByRoom("home"))).toEqual(IDS_IN_ORDER);
  });

  test("who is not stored gets the fields of the member", async ({ database }) => {
    await database.saveUser(user("ada", { displayName: "Ada Stored" }));
    const members = [
      { oderId: "ada", displayName: "Ada in the room" },
      { oderId: "bo", id: "b", username: "Bo", avatarUrl: "https://example.org/bo" },
      { oderId: "cy" },
    ];
    await database.saveRoom(room("home", { members }));
    const [ada, bo, cy] = await database.getUsersByRoom("home");
    expect(ada).toEqual(user("ada", { displayName: "Ada Stored" }));
    expect(bo).toEqual({ oderId: "bo", id: "b", username: "Bo", avatarUrl: "https://example.org/bo" });
    expect(cy).toEqual({ oderId: "cy", id: "cy", username: "cy" });
  });

  test("pages go on after the last one", async ({ database }) => {
    await database.saveRoom(room("home", { members: [{ oderId: "a" }, { oderId: "b" }, { oderId: "c" }] }));
    expect(oderIdsOf(await database.getUsersByRoom("home", { limit: 2 }))).toEqual(["a", "b"]);
    const rest = await database.getUsersByRoom("home", { limit: 2, after: { oderId: "b" } });
    expect(oderIdsOf(rest)).toEqual(["c"]);
  });

  test("an unknown room has none", async ({ database }) => {
    expect(await database.getUsersByRoom("nowhere")).toEqual([]);
  });
});

describe("updateUser", () => {
  test("left out is kept, null clears, a value sets", async ({ database }) => {
    await database.saveUser(user("ada", { displayName: "Ada", status: "away", avatarUrl: "a" }));
    await database.updateUser("ada", { displayName: "Countess", status: null });
    expect(await database.getUser("ada")).toEqual(user("ada", { displayName: "Countess", avatarUrl: "a" }));
  });

  test("the id names a user too, and may change", async ({ database }) => {
    await database.saveUser(user("ada"));
    await database.updateUser("id-ada", { id: "new" });
    expect((await database.getUser("new"))?.oderId).toBe("ada");
    expect(await database.getUser("id-ada")).toBeNull();
  });

  test("an unknown user is not-found", async ({ database }) => {
    await expectRefusal(database.updateUser("ada", { status: "x" }), "not-found", "$.payload.userId");
  });

  test("a key that is taken is a conflict", async ({ database }) => {
    await database.saveUser(user("ada", { pubkey: "key" }));
    await database.saveUser(user("bo"));
    await expectRefusal(database.updateUser("bo", { pubkey: "key" }), "conflict", "$.payload.updates.pubkey");
  });

  test("null for a required field is refused", async ({ database }) => {
    await database.saveUser(user("ada"));
    const updates = { username: null } as never;
    await expectRefusal(database.updateUser("ada", updates), "invalid", "$.payload.updates.username");
  });
});
