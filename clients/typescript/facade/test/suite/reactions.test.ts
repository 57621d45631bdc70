import { describe, expect } from "vitest";
import { expectRefusal, message, oderIdsOf, reaction, test } from "./support.js";

describe("saveReaction", () => {
  test("the same emoji of a user counts once", async ({ database }) => {
    await database.saveReaction(reaction("m1", { id: "1", timestamp: 1 }));
    await database.saveReaction(reaction("m1", { id: "2" }));
    expect(await database.getReactionsForMessage("m1")).toEqual([reaction("m1", { id: "2" })]);
  });

  test("it may come before its message", async ({ database }) => {
    await database.saveReaction(reaction("m1", { metadata: { url: "https://example.org/👍" } }));
    await database.saveMessage(message("m1"));
    const found = await database.getMessageById("m1");
    expect(found?.reactions).toEqual([reaction("m1", { metadata: { url: "https://example.org/👍" } })]);
  });

  test("a count stands for users without names", async ({ database }) => {
    const { messageId, emoji } = reaction("m1");
    await database.saveReaction(reaction("m1"));
    await database.saveReaction({ messageId, emoji, count: 7 });
    const found = await database.getReactionsForMessage("m1");
    expect(found).toEqual([{ messageId, emoji, count: 7 }, reaction("m1")]);
    const neither = database.saveReaction({ messageId, emoji });
    await expectRefusal(neither, "invalid", "$.payload.reaction.oderId");
    const both = database.saveReaction(reaction("m1", { count: 1 }));
    await expectRefusal(both, "invalid", "$.payload.reaction.oderId");
  });

  test("one to a deleted message changes nothing", async ({ database }) => {
    await database.saveMessage(message("m1"));
    await database.deleteMessage("m1");
    await database.saveReaction(reaction("m1"));
    expect(await database.getReactionsForMessage("m1")).toEqual([]);
  });

  test("large metadata is refused", async ({ database }) => {
    const large = database.saveReaction(reaction("m1", { metadata: { a: "x".repeat(2048) } }));
    await expectRefusal(large, "too-large", "$.payload.reaction.metadata");
  });
});

describe("removeReaction", () => {
  test("it removes one emoji of one user", async ({ database }) => {
    await database.saveReaction(reaction("m1"));
    await database.saveReaction(reaction("m1", { emoji: "🎉" }));
    await database.saveReaction(reaction("m1", { oderId: "eve" }));
    await database.removeReaction("m1", "bo", "👍");
    await database.removeReaction("m1", "nobody", "👍");
    const left = await database.getReactionsForMessage("m1");
    expect(left).toEqual([reaction("m1", { emoji: "🎉" }), reaction("m1", { oderId: "eve" })]);
  });

  test("null removes the count of unnamed users", async ({ database }) => {
    await database.saveReaction(reaction("m1"));
    await database.saveReaction({ messageId: "m1", emoji: "👍", count: 7 });
    await database.removeReaction("m1", null, "👍");
    expect(await database.getReactionsForMessage("m1")).toEqual([reaction("m1")]);
  });

  test("an empty emoji is refused", async ({ database }) => {
    await expectRefusal(database.removeReaction("m1", "bo", ""), "invalid", "$.payload.emoji");
  });
});

describe("getReactionsForMessage", () => {
  test("the order is timestamp, oderId, emoji", async ({ database }) => {
    const wanted = [
      reaction("m1", { oderId: "z", emoji: "x" }),
      reaction("m1", { oderId: "a", emoji: "x", timestamp: 1 }),
      reaction("m1", { oderId: "b", emoji: "\u{fffd}", timestamp: 2 }),
      reaction("m1", { oderId: "b", emoji: "😀", timestamp: 2 }),
      reaction("m1", { oderId: "a", emoji: "y", timestamp: 3 }),
    ];
    for (const each of [...wanted].reverse()) await database.saveReaction(each);
    expect(await database.getReactionsForMessage("m1")).toEqual(wanted);
  });

  test("pages go on after the last one", async ({ database }) => {
    for (const oderId of ["a", "b", "c"]) await database.saveReaction(reaction("m1", { oderId }));
    const first = await database.getReactionsForMessage("m1", { limit: 2 });
    expect(oderIdsOf(first)).toEqual(["a", "b"]);
    const after = { timestamp: null, oderId: "b", emoji: "👍" };
    expect(oderIdsOf(await database.getReactionsForMessage("m1", { limit: 2, after }))).toEqual(["c"]);
  });

  test("keys with separators do not collide", async ({ database }) => {
    await database.saveReaction(reaction("m", { oderId: "1-a", emoji: "x" }));
    await database.saveReaction(reaction("m", { oderId: "1", emoji: "a-x" }));
    await database.saveReaction(reaction("m-1", { oderId: "a", emoji: "x" }));
    await database.removeReaction("m", "1-a", "x");
    expect(oderIdsOf(await database.getReactionsForMessage("m"))).toEqual(["1"]);
    expect(oderIdsOf(await database.getReactionsForMessage("m-1"))).toEqual(["a"]);
  });

  test("a message without reactions has none", async ({ database }) => {
    expect(await database.getReactionsForMessage("nothing")).toEqual([]);
  });
});
