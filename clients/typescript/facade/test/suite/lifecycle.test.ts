import { describe, expect } from "vitest";
import { NotReadyError, ScopeSwitchedError } from "../../src/index.js";
import { attachment, ban, message, newAccount, openWindow, reaction, room, test, user } from "./support.js";

describe("initialize", () => {
  test("calls before it are rejected", async ({ account }) => {
    const database = await openWindow();
    expect(database.isReady.value).toBe(false);
    await expect(database.getAllRooms()).rejects.toThrow(NotReadyError);
    await expect(database.saveMessage(message("m1"))).rejects.toThrow("await initialize(userId)");
    await database.initialize(account);
    expect(database.isReady.value).toBe(true);
    expect(await database.getMessages("home")).toEqual([]);
  });

  test("isReady tells when it becomes true", async ({ account }) => {
    const database = await openWindow();
    const told: boolean[] = [];
    database.isReady.subscribe(() => told.push(database.isReady.value));
    await database.initialize(account);
    await database.initialize(account);
    expect(told).toEqual([true, false, true]);
  });

  test("what was saved is there in the next window", async ({ database, account }) => {
    await database.saveMessage(message("m1"));
    const other = await openWindow();
    await other.initialize(account);
    expect(await other.getMessageById("m1")).not.toBeNull();
  });

  test("an account that cannot be opened is refused", async () => {
    const database = await openWindow();
    await expect(database.initialize("")).rejects.toMatchObject({ code: "invalid" });
    expect(database.isReady.value).toBe(false);
    await expect(database.getAllRooms()).rejects.toThrow(NotReadyError);
  });

  test("without an account it never opens the latest one", async ({ database, account }) => {
    await database.saveRoom(room(account));
    await database.initialize();
    expect(await database.getRoom(account)).toBeNull();
  });
});

describe("clearAllData", () => {
  test("nothing is left, and deletions are forgotten", async ({ database }) => {
    await database.saveUser(user("ada"));
    await database.setCurrentUserId("ada");
    await database.saveRoom(
      room("home", { members: [{ oderId: "ada" }], channels: [{ id: "c", name: "c", type: "text" }] }),
    );
    await database.saveMessage(message("m1", { reactions: [reaction("m1")] }));
    await database.saveMessage(message("m2"));
    await database.deleteMessage("m2");
    await database.saveAttachment(attachment("a1", "m1"));
    await database.saveBan(ban("eve"));
    await database.clearAllData();
    expect(await database.getCurrentUser()).toBeNull();
    expect(await database.getUser("ada")).toBeNull();
    expect(await database.getAllRooms()).toEqual([]);
    expect(await database.getMessages("home")).toEqual([]);
    expect(await database.getReactionsForMessage("m1")).toEqual([]);
    expect(await database.getAllAttachments()).toEqual([]);
    expect(await database.getBansForRoom("home")).toEqual([]);
    await database.saveMessage(message("m2"));
    expect(await database.getMessageById("m2")).toMatchObject({ isDeleted: false, content: "text of m2" });
    await database.saveUser(user("ada"));
    expect(await database.getCurrentUser()).toBeNull();
  });

  test("other accounts keep theirs", async ({ database }) => {
    const other = await openWindow();
    await other.initialize(newAccount());
    await other.saveMessage(message("m1"));
    await database.clearAllData();
    expect(await other.getMessageById("m1")).not.toBeNull();
  });
});

describe("switchScope", () => {
  test("each account has data of its own", async ({ database, account }) => {
    const other = newAccount();
    await database.saveMessage(message("m1", { content: "of the first" }));
    await database.setCurrentUserId("ada");
    await database.switchScope(other);
    expect(await database.getMessageById("m1")).toBeNull();
    await database.saveUser(user("ada"));
    expect(await database.getCurrentUser()).toBeNull();
    await database.saveMessage(message("m1", { content: "of the second" }));
    await database.switchScope(account);
    expect(await database.getMessageById("m1")).toMatchObject({ content: "of the first" });
  });

  test("names of accounts are any text", async ({ database }) => {
    const base = newAccount();
    const names = [base, `${base}/..`, `${base} 😀`, base.toUpperCase(), `${base}.`, `${base}%2f`];
    for (const [index, name] of names.entries()) {
      await database.switchScope(name);
      expect(await database.getAllRooms()).toEqual([]);
      await database.saveRoom(room(String(index)));
    }
  });

  test("calls on their way are rejected, their results dropped", async ({ database }) => {
    await database.saveMessage(message("m1"));
    const call = database.getMessageById("m1");
    const switching = database.switchScope(newAccount());
    expect(database.isReady.value).toBe(false);
    await expect(call).rejects.toThrow(ScopeSwitchedError);
    await expect(database.getMessageById("m1")).rejects.toThrow(NotReadyError);
    await switching;
    expect(await database.getMessageById("m1")).toBeNull();
  });

  test("a command before it takes effect in its account", async ({ database, account }) => {
    const saving = database.saveMessage(message("m1"));
    const switching = database.switchScope(newAccount());
    await expect(saving).rejects.toThrow(ScopeSwitchedError);
    await switching;
    expect(await database.getMessageById("m1")).toBeNull();
    await database.switchScope(account);
    await expect.poll(() => database.getMessageById("m1")).not.toBeNull();
  });

  test("the last of several wins", async ({ database, account }) => {
    await database.saveMessage(message("m1"));
    const others = [newAccount(), newAccount()].map((each) => database.switchScope(each));
    const last = database.switchScope(account);
    for (const each of others) await expect(each).rejects.toThrow(ScopeSwitchedError);
    await last;
    expect(await database.getMessageById("m1")).not.toBeNull();
  });

  test("after one that fails no account is open", async ({ database, account }) => {
    await expect(database.switchScope("")).rejects.toMatchObject({ code: "invalid" });
    expect(database.isReady.value).toBe(false);
    await expect(database.getAllRooms()).rejects.toThrow(NotReadyError);
    await database.switchScope(account);
    expect(await database.getAllRooms()).toEqual([]);
  });
});
