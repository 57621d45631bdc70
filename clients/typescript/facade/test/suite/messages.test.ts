import type { MessagePage } from "backscroll/language";
import { describe, expect } from "vitest";
import type { DatabaseService } from "../../src/index.js";
import {
  attachment,
  DELETED_TEXT,
  expectRefusal,
  IDS_IN_ORDER,
  idsOf,
  message,
  reaction,
  room,
  shuffled,
  stored,
  test,
} from "./support.js";

async function saveMessages(database: DatabaseService, ids: readonly string[], fields = {}): Promise<void> {
  for (const id of ids) await database.saveMessage(message(id, fields));
}

function idsTo(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `m${String(index).padStart(3, "0")}`);
}

describe("saveMessage", () => {
  test("a saved message is read with all its fields", async ({ database }) => {
    const fields = {
      channelId: "general",
      senderName: "Ada",
      editedAt: 5,
      replyToId: "m0",
      revision: 2,
      headHash: "h",
      linkMetadata: { url: "https://example.org" },
      metadata: { nested: { list: [1, null, "é"] } },
      ordinal: 3,
      sentAt: 0,
      type: "poll",
      threadId: "m0",
      forwardedFrom: { room: "old" },
      mentions: ["bo"],
      pinnedAt: 9,
    };
    await database.saveMessage(message("m1", fields));
    expect(await database.getMessageById("m1")).toEqual(stored("m1", fields));
  });

  test("a second save replaces every field of the first", async ({ database }) => {
    await database.saveMessage(message("m1", { senderName: "Ada", metadata: { a: 1 }, editedAt: 5 }));
    await database.saveMessage(message("m1", { content: "again", senderName: null }));
    expect(await database.getMessageById("m1")).toEqual(stored("m1", { content: "again" }));
  });

  test("listed reactions replace, none leaves the stored", async ({ database }) => {
    await database.saveMessage(message("m1", { reactions: [reaction("m1"), reaction("m1", { oderId: "eve" })] }));
    await database.saveMessage(message("m1", { content: "edited" }));
    expect(await database.getReactionsForMessage("m1")).toHaveLength(2);
    await database.saveMessage(message("m1", { reactions: [reaction("m1", { emoji: "🎉" })] }));
    expect(await database.getReactionsForMessage("m1")).toEqual([reaction("m1", { emoji: "🎉" })]);
    await database.saveMessage(message("m1", { reactions: [] }));
    expect(await database.getReactionsForMessage("m1")).toEqual([]);
  });

  test("a reaction to another message is refused", async ({ database }) => {
    const wrong = message("m1", { reactions: [reaction("m1"), reaction("m2")] });
    await expectRefusal(database.saveMessage(wrong), "invalid", "$.payload.message.reactions[1].messageId");
    expect(await database.getMessageById("m1")).toBeNull();
  });

  test("an id of another room is a conflict", async ({ database }) => {
    await database.saveMessage(message("m1"));
    const call = database.saveMessage(message("m1", { roomId: "work" }));
    await expect(call).rejects.toMatchObject({ details: { roomId: "home" } });
    await expectRefusal(call, "conflict", "$.payload.message.id");
    expect(await database.getMessages("work")).toEqual([]);
  });

  test("a copy of a deleted message changes nothing", async ({ database }) => {
    await database.saveMessage(message("m1"));
    await database.deleteMessage("m1");
    const deleted = await database.getMessageById("m1");
    await database.saveMessage(message("m1", { timestamp: 9, reactions: [reaction("m1")] }));
    await database.saveMessage(message("m1", { roomId: "work" }));
    expect(await database.getMessageById("m1")).toEqual(deleted);
    expect(await database.getReactionsForMessage("m1")).toEqual([]);
  });

  test("a message saved as deleted has no text", async ({ database }) => {
    await database.saveMessage(message("m1", { isDeleted: true, reactions: [reaction("m1")] }));
    expect(await database.getMessageById("m1")).toEqual(stored("m1", { isDeleted: true, content: DELETED_TEXT }));
  });

  test("text that is too large or none is refused", async ({ database }) => {
    const tooLarge = message("m1", { content: "é".repeat(524_289) });
    await expectRefusal(database.saveMessage(tooLarge), "too-large", "$.payload.message.content");
    await expectRefusal(database.saveMessage(message("é".repeat(257))), "too-large", "$.payload.message.id");
    for (const content of ["a\0b", "\ud800"]) {
      await expectRefusal(database.saveMessage(message("m1", { content })), "invalid", "$.payload.message.content");
    }
    await database.saveMessage(message("m1", { content: "é".repeat(524_288) }));
    expect((await database.getMessageById("m1"))?.content).toHaveLength(524_288);
  });

  test("calls take effect in their order, without waiting", async ({ database }) => {
    const calls = [
      database.saveMessage(message("m1")),
      database.updateMessage("m1", { content: "edited" }),
      database.getMessageById("m1"),
      database.deleteMessage("m1"),
      database.saveMessage(message("m1")),
      database.getMessageById("m1"),
    ];
    const outcomes = await Promise.all(calls);
    expect(outcomes[2]).toMatchObject({ content: "edited" });
    expect(outcomes[5]).toMatchObject({ content: DELETED_TEXT });
  });

  test("empty ids and unknown fields are refused", async ({ database }) => {
    await expectRefusal(database.saveMessage(message("")), "invalid", "$.payload.message.id");
    const unknown = { ...message("m1"), colour: "red" };
    await expect(database.saveMessage(unknown)).rejects.toMatchObject({ code: "invalid" });
    expect(await database.getMessages("home")).toEqual([]);
  });
});

describe("getMessages", () => {
  test("the order is timestamp, ordinal, bytes of the id", async ({ database }) => {
    await saveMessages(database, shuffled(IDS_IN_ORDER));
    await database.saveMessage(message("first", { timestamp: 0, ordinal: 9 }));
    await database.saveMessage(message("0", { ordinal: 1 }));
    await database.saveMessage(message("later", { timestamp: 2, ordinal: -1 }));
    expect(idsOf(await database.getMessages("home"))).toEqual(["first", ...IDS_IN_ORDER, "0", "later"]);
  });

  test("limit and offset cover the room without gaps", async ({ database }) => {
    await saveMessages(database, idsTo(7));
    const parts = await Promise.all([0, 3, 6, 9].map((offset) => database.getMessages("home", 3, offset)));
    expect(parts.map(idsOf)).toEqual([["m000", "m001", "m002"], ["m003", "m004", "m005"], ["m006"], []]);
    expect(idsOf(await database.getMessages("home", undefined, 5))).toEqual(["m005", "m006"]);
  });

  test("without a limit there are at most 100", async ({ database }) => {
    await Promise.all(idsTo(101).map((id) => database.saveMessage(message(id))));
    expect(await database.getMessages("home")).toHaveLength(100);
  });

  test("deleted messages keep their places", async ({ database }) => {
    await saveMessages(database, ["m1", "m2", "m3"]);
    await database.deleteMessage("m2");
    const contents = (await database.getMessages("home")).map(({ content }) => content);
    expect(contents).toEqual(["text of m1", DELETED_TEXT, "text of m3"]);
  });

  test("childLists: false leaves the reactions out", async ({ database }) => {
    await database.saveMessage(message("m1", { reactions: [reaction("m1")] }));
    const [bare] = await database.getMessages("home", 50, 0, { childLists: false });
    expect(bare).not.toHaveProperty("reactions");
    expect(await database.getMessages("home", 50)).toEqual([stored("m1", { reactions: [reaction("m1") as never] })]);
  });

  test("more than fits into a reply is too-large", async ({ database }) => {
    for (const id of idsTo(9)) await database.saveMessage(message(id, { content: "x".repeat(1_000_000) }));
    await expect(database.getMessages("home")).rejects.toMatchObject({ code: "too-large" });
    expect(await database.getMessages("home", 4)).toHaveLength(4);
  });

  test("a room without messages has none", async ({ database }) => {
    expect(await database.getMessages("nowhere")).toEqual([]);
  });

  test("limits out of range are refused", async ({ database }) => {
    await expectRefusal(database.getMessages("home", 0), "invalid", "$.payload.limit");
    await expectRefusal(database.getMessages("home", 501), "invalid", "$.payload.limit");
    await expectRefusal(database.getMessages("home", 1, -1), "invalid", "$.payload.offset");
    await expectRefusal(database.getMessages(""), "invalid", "$.payload.roomId");
  });
});

describe("getMessageById", () => {
  test("a message that is not stored is null", async ({ database }) => {
    expect(await database.getMessageById("m1")).toBeNull();
  });

  test("ids are any text, emoji beyond the BMP too", async ({ database }) => {
    for (const id of ["😀", "a/b:c", " ", "e\u0301", "é", "constructor", "__proto__"]) {
      await database.saveMessage(message(id));
      expect(await database.getMessageById(id)).toEqual(stored(id));
    }
    expect(await database.getMessages("home")).toHaveLength(7);
  });

  test("it has reactions and attachments as asked", async ({ database }) => {
    await database.saveMessage(message("m1", { reactions: [reaction("m1")] }));
    await database.saveAttachment(attachment("a1", "m1"));
    expect(await database.getMessageById("m1")).not.toHaveProperty("attachments");
    const found = await database.getMessageById("m1", { childLists: false, attachments: true });
    expect(found).not.toHaveProperty("reactions");
    expect(found?.attachments).toEqual([attachment("a1", "m1")]);
  });
});

describe("deleteMessage", () => {
  test("place and author stay, text and children go", async ({ database }) => {
    const fields = { metadata: { a: 1 }, linkMetadata: { b: 2 }, revision: 4, replyToId: "m0", pinnedAt: 3 };
    await database.saveMessage(message("m1", { ...fields, mentions: ["bo"], reactions: [reaction("m1")] }));
    await database.saveAttachment(attachment("a1", "m1"));
    await database.deleteMessage("m1");
    const left = { isDeleted: true, content: DELETED_TEXT, revision: 4, replyToId: "m0" };
    expect(await database.getMessageById("m1")).toEqual(stored("m1", left));
    expect(await database.getAllAttachments()).toEqual([]);
  });

  test("deleting twice succeeds, an unknown message does not", async ({ database }) => {
    await database.saveMessage(message("m1"));
    await database.deleteMessage("m1");
    await database.deleteMessage("m1");
    await expectRefusal(database.deleteMessage("m2"), "not-found", "$.payload.messageId");
  });
});

describe("updateMessage", () => {
  test("left out is kept, null clears, a value sets", async ({ database }) => {
    await database.saveMessage(message("m1", { senderName: "Ada", replyToId: "m0", reactions: [reaction("m1")] }));
    await database.updateMessage("m1", { content: "new", replyToId: null, editedAt: 9 });
    const reactions = await database.getReactionsForMessage("m1");
    const expected = stored("m1", { content: "new", senderName: "Ada", editedAt: 9, reactions });
    expect(await database.getMessageById("m1")).toEqual(expected);
  });

  test("listed reactions replace the stored", async ({ database }) => {
    await database.saveMessage(message("m1", { reactions: [reaction("m1")] }));
    await database.updateMessage("m1", { reactions: [reaction("m1", { emoji: "🎉" })] });
    expect(await database.getReactionsForMessage("m1")).toEqual([reaction("m1", { emoji: "🎉" })]);
    const wrong = database.updateMessage("m1", { reactions: [reaction("m2")] });
    await expectRefusal(wrong, "invalid", "$.payload.updates.reactions[0].messageId");
  });

  test("another roomId moves the message", async ({ database }) => {
    await database.saveMessage(message("m1"));
    await database.saveAttachment(attachment("a1", "m1"));
    await database.updateMessage("m1", { roomId: "work" });
    expect(await database.getMessages("home")).toEqual([]);
    expect(await database.getMessages("work")).toEqual([stored("m1", { roomId: "work" })]);
    expect(await database.getAttachmentsForMessage("m1")).toHaveLength(1);
  });

  test("another timestamp moves it to another place", async ({ database }) => {
    await saveMessages(database, ["m1", "m2", "m3"]);
    await database.updateMessage("m1", { timestamp: 2 });
    expect(idsOf(await database.getMessages("home"))).toEqual(["m2", "m3", "m1"]);
  });

  test("isDeleted deletes it", async ({ database }) => {
    await database.saveMessage(message("m1", { reactions: [reaction("m1")] }));
    await database.updateMessage("m1", { isDeleted: true });
    expect(await database.getMessageById("m1")).toEqual(stored("m1", { isDeleted: true, content: DELETED_TEXT }));
  });

  test("unknown is not-found, deleted is a conflict", async ({ database }) => {
    await expectRefusal(database.updateMessage("m1", { content: "x" }), "not-found", "$.payload.messageId");
    await database.saveMessage(message("m1"));
    await database.deleteMessage("m1");
    await expectRefusal(database.updateMessage("m1", { content: "x" }), "conflict", "$.payload.messageId");
  });

  test("null for a required field is refused", async ({ database }) => {
    await database.saveMessage(message("m1"));
    const updates = { content: null } as never;
    await expectRefusal(database.updateMessage("m1", updates), "invalid", "$.payload.updates.content");
  });
});

describe("clearRoomMessages", () => {
  test("it removes the messages of that room only", async ({ database }) => {
    for (const roomId of ["home", "work"]) {
      await database.saveMessage(message(roomId, { roomId, reactions: [reaction(roomId)] }));
      await database.saveAttachment(attachment(`a-${roomId}`, roomId));
    }
    await database.saveRoom(room("home"));
    await database.clearRoomMessages("home");
    await database.clearRoomMessages("nowhere");
    expect(await database.getMessages("home")).toEqual([]);
    expect(await database.getReactionsForMessage("home")).toEqual([]);
    expect(idsOf(await database.getAllAttachments())).toEqual(["a-work"]);
    expect(await database.getMessages("work")).toHaveLength(1);
    expect(await database.getRoom("home")).not.toBeNull();
  });

  test("deleted messages stay deleted, others may return", async ({ database }) => {
    await saveMessages(database, ["m1", "m2"]);
    await database.deleteMessage("m1");
    await database.clearRoomMessages("home");
    await saveMessages(database, ["m1", "m2"]);
    expect(idsOf(await database.getMessages("home"))).toEqual(["m2"]);
  });
});

describe("getMessagePage", () => {
  async function walk(database: DatabaseService, way: "before" | "after", from: MessagePage): Promise<string[][]> {
    const pages = [idsOf(from.messages)];
    let page = from;
    while (way === "before" ? page.hasOlder : page.hasNewer) {
      const cursor = way === "before" ? page.olderCursor : page.newerCursor;
      page = await database.getMessagePage({ roomId: "home", limit: 4, [way]: cursor });
      pages.push(idsOf(page.messages));
    }
    return pages;
  }

  test("pages lead to both ends", async ({ database }) => {
    const ids = idsTo(10);
    await saveMessages(database, ids);
    const newest = await database.getMessagePage({ roomId: "home", limit: 4 });
    expect(newest.hasNewer).toBe(false);
    const back = await walk(database, "before", newest);
    expect(back).toEqual([ids.slice(6), ids.slice(2, 6), ids.slice(0, 2)]);
    const middle = await database.getMessagePage({ roomId: "home", limit: 4, around: "m003" });
    expect(idsOf(middle.messages)).toEqual(ids.slice(1, 5));
    expect((await walk(database, "before", middle)).reverse().flat()).toEqual(ids.slice(0, 5));
    expect((await walk(database, "after", middle)).flat()).toEqual(ids.slice(1));
  });

  test("a cursor outlives its message and finds new ones", async ({ database }) => {
    await saveMessages(database, idsTo(4));
    const page = await database.getMessagePage({ roomId: "home" });
    const after = { roomId: "home", after: page.newerCursor ?? "" };
    const empty = await database.getMessagePage(after);
    expect(empty).toEqual({ messages: [], hasOlder: true, hasNewer: false });
    await database.deleteMessage("m003");
    await database.saveMessage(message("m004"));
    expect(idsOf((await database.getMessagePage(after)).messages)).toEqual(["m004"]);
  });

  test("equal timestamps page by the bytes of ids", async ({ database }) => {
    await saveMessages(database, shuffled(IDS_IN_ORDER));
    const newest = await database.getMessagePage({ roomId: "home", limit: 4 });
    expect((await walk(database, "before", newest)).reverse().flat()).toEqual(IDS_IN_ORDER);
  });

  test("a channel, a thread or pinned messages alone", async ({ database }) => {
    await database.saveMessage(message("m1", { channelId: "general" }));
    await database.saveMessage(message("m2", { threadId: "m1" }));
    await database.saveMessage(message("m3", { pinnedAt: 1 }));
    const idsIn = async (query: object): Promise<string[]> =>
      idsOf((await database.getMessagePage({ roomId: "home", ...query })).messages);
    expect(await idsIn({ channelId: "general" })).toEqual(["m1"]);
    expect(await idsIn({ threadId: "m1" })).toEqual(["m2"]);
    expect(await idsIn({ pinned: true })).toEqual(["m3"]);
    await expect(idsIn({ threadId: "m1", pinned: true })).rejects.toMatchObject({ code: "invalid" });
  });

  test("around a time, without deleted, with attachments", async ({ database }) => {
    for (const timestamp of [1, 2, 3, 4, 5])
      await database.saveMessage(message(`m${String(timestamp)}`, { timestamp }));
    await database.saveAttachment(attachment("a1", "m4"));
    await database.deleteMessage("m3");
    const query = { roomId: "home", limit: 2, aroundTime: 3, includeDeleted: false, attachments: true };
    const page = await database.getMessagePage(query);
    expect(idsOf(page.messages)).toEqual(["m2", "m4"]);
    expect(page.messages[1]?.attachments).toEqual([attachment("a1", "m4")]);
    expect([page.hasOlder, page.hasNewer]).toEqual([true, true]);
  });

  test("foreign cursors and unknown messages are refused", async ({ database }) => {
    await saveMessages(database, ["m1"], { roomId: "work" });
    const { olderCursor = "" } = await database.getMessagePage({ roomId: "work" });
    const foreign = database.getMessagePage({ roomId: "home", before: olderCursor });
    await expectRefusal(foreign, "invalid", "$.payload.before");
    await expectRefusal(database.getMessagePage({ roomId: "home", around: "m1" }), "not-found", "$.payload.around");
    await expectRefusal(database.getMessagePage({ roomId: "home", after: "x" }), "invalid", "$.payload.after");
  });
});
