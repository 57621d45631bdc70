import { describe, expect } from "vitest";
import { attachment, expectRefusal, IDS_IN_ORDER, idsOf, message, shuffled, test } from "./support.js";

describe("saveAttachment", () => {
  test("a second save replaces every field of the first", async ({ database }) => {
    const fields = { size: 5, mime: "image/png", isImage: true, sha256: "h", metadata: { a: 1 }, mediaId: "none" };
    await database.saveAttachment(attachment("a1", "m1", fields));
    expect(await database.getAllAttachments()).toEqual([attachment("a1", "m1", fields)]);
    await database.saveAttachment(attachment("a1", "m1", { size: 0 }));
    expect(await database.getAllAttachments()).toEqual([attachment("a1", "m1", { size: 0 })]);
  });

  test("it may come before its message", async ({ database }) => {
    await database.saveAttachment(attachment("a1", "m1"));
    expect(await database.getAttachmentsForMessage("m1")).toHaveLength(1);
    await database.saveMessage(message("m1"));
    const found = await database.getMessageById("m1", { attachments: true });
    expect(found?.attachments).toEqual([attachment("a1", "m1")]);
  });

  test("saved again, it may move to another message", async ({ database }) => {
    await database.saveAttachment(attachment("a1", "m1"));
    await database.saveAttachment(attachment("a1", "m2"));
    expect(await database.getAttachmentsForMessage("m1")).toEqual([]);
    expect(await database.getAttachmentsForMessage("m2")).toEqual([attachment("a1", "m2")]);
  });

  test("one of a deleted message changes nothing", async ({ database }) => {
    await database.saveMessage(message("m1"));
    await database.deleteMessage("m1");
    await database.saveAttachment(attachment("a1", "m1"));
    expect(await database.getAllAttachments()).toEqual([]);
  });

  test("a negative size is refused", async ({ database }) => {
    const negative = database.saveAttachment(attachment("a1", "m1", { size: -1 }));
    await expectRefusal(negative, "invalid", "$.payload.attachment.size");
  });
});

describe("getAttachmentsForMessage", () => {
  test("the order is the bytes of the id", async ({ database }) => {
    for (const id of shuffled(IDS_IN_ORDER)) await database.saveAttachment(attachment(id, "m1"));
    await database.saveAttachment(attachment("other", "m2"));
    expect(idsOf(await database.getAttachmentsForMessage("m1"))).toEqual(IDS_IN_ORDER);
  });

  test("pages go on after the last one", async ({ database }) => {
    for (const id of ["a", "b", "c"]) await database.saveAttachment(attachment(id, "m1"));
    expect(idsOf(await database.getAttachmentsForMessage("m1", { limit: 2 }))).toEqual(["a", "b"]);
    expect(idsOf(await database.getAttachmentsForMessage("m1", { limit: 2, after: { id: "b" } }))).toEqual(["c"]);
  });

  test("an unknown message has none", async ({ database }) => {
    expect(await database.getAttachmentsForMessage("m1")).toEqual([]);
  });
});

describe("getAllAttachments", () => {
  test("those of all messages, by the bytes of their ids", async ({ database }) => {
    for (const id of shuffled(IDS_IN_ORDER)) await database.saveAttachment(attachment(id, `message of ${id}`));
    expect(idsOf(await database.getAllAttachments())).toEqual(IDS_IN_ORDER);
  });

  test("pages go on after the last one", async ({ database }) => {
    for (const id of ["a", "b", "c"]) await database.saveAttachment(attachment(id, id));
    expect(idsOf(await database.getAllAttachments({ limit: 2 }))).toEqual(["a", "b"]);
    expect(idsOf(await database.getAllAttachments({ limit: 2, after: { id: "b" } }))).toEqual(["c"]);
    await expectRefusal(database.getAllAttachments({ limit: 0 }), "invalid", "$.payload.limit");
  });
});

describe("deleteAttachmentsForMessage", () => {
  test("those of the message go, the message stays", async ({ database }) => {
    await database.saveMessage(message("m1"));
    for (const id of ["a", "b"]) await database.saveAttachment(attachment(id, "m1"));
    await database.saveAttachment(attachment("c", "m2"));
    await database.deleteAttachmentsForMessage("m1");
    await database.deleteAttachmentsForMessage("m1");
    expect(idsOf(await database.getAllAttachments())).toEqual(["c"]);
    expect(await database.getMessageById("m1")).not.toBeNull();
  });
});
