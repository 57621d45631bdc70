/** Errors and results across the bridge, in envelopes that were cloned as Electron does, and as JSON. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BackscrollError,
  CallerError,
  DaemonError,
  ERRORS,
  InternalError,
  InvalidError,
  NoReplyError,
  type ErrorDetails,
} from "backscroll/language";
import { errorEnvelope, unwrap } from "../src/envelope.js";

const CROSSINGS: readonly [string, (envelope: unknown) => unknown][] = [
  ["cloned", structuredClone],
  ["as JSON", (envelope) => JSON.parse(JSON.stringify(envelope)) as unknown],
];
const DETAILS = { path: "$.payload.message.id", failures: [{ index: 1, code: "invalid", message: "no", path: "$" }] };

/** What is thrown on the other side of the bridge. */
function across(error: BackscrollError, cross: (envelope: unknown) => unknown): unknown {
  try {
    return unwrap(cross(errorEnvelope(error)));
  } catch (thrown) {
    return thrown;
  }
}

function assertSame(actual: unknown, expected: BackscrollError): void {
  assert(actual instanceof BackscrollError);
  assert.equal(actual.constructor, expected.constructor);
  for (const name of ["name", "code", "message", "fault", "retryable", "details", "failures"] as const) {
    assert.deepEqual(actual[name], expected[name], name);
  }
}

for (const [how, cross] of CROSSINGS) {
  void test(`every class of the language crosses ${how}`, () => {
    for (const [code, ErrorClass] of Object.entries(ERRORS)) {
      for (const more of [{}, { retryable: true }, { details: {} }, { details: DETAILS }]) {
        const error = new ErrorClass(`refused: ${code}`, { code, ...more });
        assertSame(across(error, cross), error);
      }
    }
    assertSame(across(new NoReplyError("late"), cross), new NoReplyError("late"));
  });

  void test(`codes of later levels cross ${how}`, () => {
    for (const code of ["quota", "constructor", "__proto__", "toString", "", "日本"]) {
      for (const ErrorClass of [CallerError, DaemonError]) {
        const details: ErrorDetails = { code, retryable: true, details: DETAILS };
        assertSame(across(new ErrorClass("later", details), cross), new ErrorClass("later", details));
      }
    }
  });

  void test(`results cross ${how}`, () => {
    for (const result of [null, false, 0, "", [], {}, { messages: [{ id: "m1" }] }]) {
      assert.deepEqual(unwrap(cross({ ok: true, result })), result);
    }
  });
}

void test("bytes and undefined are results of a clone", () => {
  assert.deepEqual(unwrap(structuredClone({ ok: true, result: Uint8Array.of(1, 2) })), Uint8Array.of(1, 2));
  assert.equal(unwrap(structuredClone({ ok: true, result: undefined })), undefined);
});

void test("what is no envelope is an internal error", () => {
  const error = { code: "invalid", message: "no", fault: "caller", retryable: false };
  const envelopes: unknown[] = [
    undefined,
    null,
    "ok",
    [],
    {},
    { ok: "true", result: 1 },
    { ok: true },
    { ok: false },
    { ok: false, error: null },
    { ok: false, error: "invalid" },
    { ok: false, error: { ...error, code: 1 } },
    { ok: false, error: { ...error, fault: "nobody" } },
    { ok: false, error: { ...error, retryable: undefined } },
    { ok: false, error: { ...error, details: [] } },
  ];
  for (const envelope of envelopes) assert.throws(() => unwrap(envelope), InternalError, JSON.stringify(envelope));
  assert.throws(() => unwrap({ ok: false, error }), InvalidError);
});
