/** Files of several parts, from and into streams. */

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import { Client, NotFoundError, UnavailableError } from "../src/index.js";
import { Daemon, LONG_MS } from "./support.js";

void test("a file of several parts goes up from a stream and comes down as one", async (t) => {
  const daemon = await Daemon.start(t);
  const client = new Client({ dataDir: daemon.dataDir, timeoutMs: LONG_MS });
  const bytes = randomBytes(9 * 2 ** 20 + 7);
  const pieces = Array.from({ length: Math.ceil(bytes.length / 100_000) }, (_, at) =>
    bytes.subarray(at * 100_000, (at + 1) * 100_000),
  );
  const media = await client.upload(Readable.from(pieces), "image/png", { uploaderId: "ada" });
  assert.deepEqual(
    [media.size, media.parts, media.mime, media.uploaderId, media.sha256],
    [bytes.length, 3, "image/png", "ada", createHash("sha256").update(bytes).digest("hex")],
  );
  assert.equal((await client.upload(bytes, "image/png")).id, media.id);

  const read: Uint8Array[] = [];
  for await (const part of ReadableStream.from(client.download(media.id))) {
    read.push(part);
    if (read.length === 1) await daemon.restart();
  }
  assert(Buffer.concat(read).equals(bytes));
  client.close();
});

void test("an empty file is one, and an unknown one is not found", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const { id, size } = await client.upload([], "text/plain");
  assert.equal(size, 0);
  for await (const part of client.download(id)) assert.equal(part.length, 0);
  await assert.rejects(client.download("none").next(), NotFoundError);
  client.close();
});

void test("an upload from a source that uses its buffer again stores what it was given", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir, timeoutMs: LONG_MS });
  const source = async function* (): AsyncGenerator<Uint8Array> {
    const buffer = Buffer.alloc(1);
    for (const text of "abc") {
      buffer.write(text);
      yield await Promise.resolve(buffer);
    }
  };
  const { id } = await client.upload(source(), "text/plain");
  const { value: part } = await client.download(id).next();
  assert.equal(Buffer.from(part ?? []).toString(), "abc");
  client.close();
});

void test("an upload stops when it is told to, also while its source waits", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir, timeoutMs: LONG_MS });
  const waits = async function* (): AsyncGenerator<Uint8Array> {
    yield Buffer.from("x");
    await new Promise(() => undefined);
  };
  const abort = new AbortController();
  const uploading = client.upload(waits(), "text/plain", { signal: abort.signal });
  setImmediate(() => {
    abort.abort("enough");
  });
  await assert.rejects(uploading, (reason) => reason === "enough");
  let isRead = false;
  let isClosed = false;
  const unread = (function* (): Generator<Uint8Array> {
    isRead = true;
    yield Buffer.from("x");
  })();
  const stopped = client.upload(unread, "text/plain", { signal: AbortSignal.abort("before") });
  await assert.rejects(stopped, (reason) => reason === "before");
  assert(!isRead);
  const refused = (function* (): Generator<Uint8Array> {
    try {
      for (;;) yield Buffer.alloc(2 ** 22);
    } finally {
      isClosed = true;
    }
  })();
  client.close();
  await assert.rejects(client.upload(refused, "text/plain"), UnavailableError);
  assert(isClosed);
});

void test("an upload whose source fails, or which is refused, ends with that error", async (t) => {
  const { dataDir } = await Daemon.start(t);
  const client = new Client({ dataDir });
  const failing = async function* (): AsyncGenerator<Uint8Array> {
    yield randomBytes(5 * 2 ** 20);
    await Promise.reject(new Error("the disk was pulled out"));
  };
  await assert.rejects(client.upload(failing(), "text/plain"), /pulled out/);
  await assert.rejects(client.upload([Buffer.from("x")], "text/plain", { uploaderId: "" }), { code: "invalid" });
  client.close();
});
