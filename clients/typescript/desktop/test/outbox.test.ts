/** The events on their way to one window. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { StoreEvent } from "backscroll/language";
import { Outbox } from "../src/outbox.js";
import { changedIds } from "./support.js";

function changeOf(id: string): StoreEvent {
  return { type: "changed", changes: [{ noun: "message", id, roomId: "r1", seq: 1, at: 1, requestId: "r" }] };
}

void test("what is pushed at any moment is sent", async () => {
  for (let turns = 0; turns < 10; turns += 1) {
    const sent: StoreEvent[] = [];
    const outbox = new Outbox((event) => void sent.push(event));
    outbox.open();
    for (const id of ["m1", "m2", "m3"]) {
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      outbox.push(changeOf(id));
    }
    await nextTurn();
    assert.deepEqual(changedIds(sent), ["m1", "m2", "m3"], `after ${String(turns)} turns`);
  }
});
