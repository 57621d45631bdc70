/** Messages whose time has come. */

import assert from "node:assert/strict";
import { eventsOf, messageOf, newScope, opened, waitUntil, test } from "./support.js";

test("a message is deleted when its time has come", async (t) => {
  const scope = newScope();
  const [store, other] = [await opened(t, scope), await opened(t, scope)];
  const [events, ofOther] = [eventsOf(store), eventsOf(other)];
  const soon = Date.now() + 80;
  const later = messageOf(2, { expiresAt: soon + 3_600_000 });
  await store.command({ type: "save-message", payload: { message: later } });
  await store.command({ type: "save-message", payload: { message: messageOf(1, { expiresAt: soon }) } });
  await waitUntil(() => events.length >= 3 && ofOther.length >= 3);
  assert(Date.now() >= soon);
  const found = await store.query({ type: "get-message-by-id", payload: { messageId: "m1" } });
  assert.deepEqual([found?.isDeleted, found?.content, found?.expiresAt], [true, "[Message deleted]", soon]);
  await other.query({ type: "get-messages", payload: { roomId: "r1" } });
  assert.deepEqual([events.length, ofOther.length], [3, 3], "two tabs delete it once");
});

test("no query shows a message whose time has passed", async (t) => {
  const store = await opened(t);
  const past = messageOf(1, { expiresAt: 5 });
  const saved = store.command({ type: "save-message", payload: { message: past } });
  const found = store.query({ type: "get-message-page", payload: { roomId: "r1" } });
  const later = store.command({ type: "save-message", payload: { message: messageOf(1) } });
  await Promise.all([saved, later]);
  assert.deepEqual(
    (await found).messages.map((each) => each.isDeleted),
    [true],
  );
});

test("what expired while no tab was open is deleted then", async (t) => {
  const scope = newScope();
  const before = await opened(t, scope);
  const message = messageOf(1, { expiresAt: Date.now() + 1_000 });
  await before.command({ type: "save-message", payload: { message } });
  await before.close();
  await waitUntil(() => Date.now() > (message.expiresAt ?? 0));
  const store = await opened(t);
  const events = eventsOf(store);
  await store.switchScope(scope);
  await waitUntil(() => events.length > 0);
  assert.deepEqual(
    events.map((each) => each.type),
    ["changed"],
  );
});
