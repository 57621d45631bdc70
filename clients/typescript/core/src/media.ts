/** Upload and download of whole files in parts, with only a few parts in memory at a time. */

import { createHash } from "node:crypto";
import { invalid } from "./address.js";
import type { Client, RequestOptions } from "./client.js";
import { NotFoundError, StorageError } from "./generated/errors.js";
import { LIMITS } from "./generated/limits.js";
import type { Media } from "./generated/records.js";

const PARTS_IN_FLIGHT = 3;
/** How long the daemon may take for each part that it reads again. */
const READ_MS_PER_PART = 100;
const TIMEOUT_MS = 5_000;

/** Bytes, or what yields them in pieces of any size, such as a file's stream or a `ReadableStream`. */
export type ByteSource = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** What holds for an upload. */
export interface UploadOptions {
  /** Who uploaded it, as `Media` names it. */
  uploaderId?: string | undefined;
  /** Stops the upload. Parts that were put are removed by the daemon within two days. */
  signal?: AbortSignal | undefined;
}

/** What holds for each of the requests of a download. */
export type DownloadOptions = Omit<RequestOptions, "requestId">;

export async function upload(
  client: Client,
  source: ByteSource,
  mime: string,
  { uploaderId, signal }: UploadOptions,
): Promise<Media> {
  const digest = createHash("sha256");
  const parts: string[] = [];
  const underWay: Promise<string>[] = [];
  const settleOldest = async (): Promise<void> => {
    const [oldest] = underWay;
    if (oldest === undefined) return;
    parts.push(await oldest);
    void underWay.shift();
  };
  try {
    for await (const data of partsOf(source, signal)) {
      digest.update(data);
      if (underWay.length >= PARTS_IN_FLIGHT) await settleOldest();
      const putting = client.putMediaPart({ data }, { signal });
      putting.catch(() => undefined); // its error is thrown when it is its turn
      underWay.push(putting);
    }
    while (underWay.length > 0) await settleOldest();
  } finally {
    await Promise.allSettled(underWay);
  }
  const timeoutMs = TIMEOUT_MS + READ_MS_PER_PART * parts.length;
  const by = uploaderId === undefined ? {} : { uploaderId };
  const media = await client.putMedia({ parts, mime, ...by }, { timeoutMs, signal });
  compare(digest.digest("hex"), media);
  return media;
}

export async function* download(
  client: Client,
  mediaId: string,
  options: DownloadOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const media = await client.getMedia({ mediaId }, options);
  if (media === null) throw new NotFoundError(`there is no media ${JSON.stringify(mediaId)}`, { code: "not-found" });
  const digest = createHash("sha256");
  const underWay: Promise<Uint8Array>[] = [];
  try {
    for (let asked = 0, part = 0; part < media.parts; part += 1) {
      for (; asked < media.parts && underWay.length < PARTS_IN_FLIGHT; asked += 1) {
        const asking = client.getMediaPart({ mediaId, part: asked }, options);
        asking.catch(() => undefined); // its error is thrown when it is its turn
        underWay.push(asking);
      }
      const [next] = underWay;
      if (next === undefined) break;
      const data = await next;
      void underWay.shift();
      digest.update(data);
      yield data;
    }
  } finally {
    await Promise.allSettled(underWay);
  }
  compare(digest.digest("hex"), media);
}

/** The bytes in parts of the maximum size, at least one: an empty file has one empty part. */
async function* partsOf(source: ByteSource, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined> {
  refuseText(source);
  const size = LIMITS.mediaPartBytes;
  let collected: Uint8Array[] = [];
  let bytes = 0;
  let hasPart = false;
  for await (const piece of piecesOf(source instanceof Uint8Array ? [source] : source, signal)) {
    refuseText(piece);
    for (let at = 0; at < piece.length;) {
      const taken = piece.subarray(at, at + size - bytes);
      collected.push(Buffer.from(taken)); // a copy: a source may read its next piece into the same bytes
      bytes += taken.length;
      at += taken.length;
      if (bytes < size) continue;
      yield Buffer.concat(collected);
      hasPart = true;
      collected = [];
      bytes = 0;
    }
  }
  if (bytes > 0 || !hasPart) yield Buffer.concat(collected);
}

function refuseText(bytes: unknown): void {
  if (typeof bytes === "string") {
    throw invalid("a file is its bytes, not text: upload createReadStream(path), or Buffer.from(text)");
  }
}

/** What a source yields, until the signal is aborted, even if the source never goes on. */
async function* piecesOf(
  source: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const pieces = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let isDone: boolean | undefined = false;
  try {
    for (;;) {
      const next = await unlessAborted(async () => pieces.next(), signal);
      isDone = next.done;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // Not awaited: a source that waits for its next piece returns only after that.
    if (!isDone) void Promise.resolve(pieces.return?.()).catch(() => undefined);
  }
}

/** What comes of an action, or the signal's reason if it is aborted before. */
function unlessAborted<Result>(action: () => Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const abort = (): void => {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- the reason is the caller's
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
    void action()
      .then(resolve, reject)
      .finally(() => signal?.removeEventListener("abort", abort));
  });
}

function compare(sha256: string, media: Media): void {
  if (sha256 === media.sha256) return;
  throw new StorageError(`media ${JSON.stringify(media.id)} does not have the same bytes as the file`, {
    code: "storage",
  });
}
