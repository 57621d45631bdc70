/** Sessions of windows, on real daemons: accounts, changes, and what is refused. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { changedIds, messageOf, openTestStore, openWindow, waitUntil } from "./support.js";

void test("two windows of one account follow one another", async (t) => {
  const { store } = await openTestStore(t);
  const [one, other] = [openWindow(store), openWindow(store)];
  await one.page.switchScope("ada");
  await other.page.switchScope("ada");
  await one.page.command({ type: "save-message", payload: { message: messageOf(1) } });
  await waitUntil(() => changedIds(other.events).includes("m1") && changedIds(one.events).includes("m1"));
  const { messages } = await other.page.query({ type: "get-message-page", payload: { roomId: "r1" } });
  assert.deepEqual(
    messages.map(({ id }) => id),
    ["m1"],
  );
});
