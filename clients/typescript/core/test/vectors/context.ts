/** What the sets share: a daemon that is started when it is first needed, and clients of it. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OPERATIONS, type OperationInfo } from "../../src/generated/operations.js";
import { type Answer, Client } from "../../src/index.js";

export const TIMEOUT_MS = 10_000;

export class Context {
  readonly directory = mkdtempSync(join(tmpdir(), "backscroll-vectors-"));
  #starting: Promise<string> | undefined;
  #stop: () => Promise<void> = () => Promise.resolve();
  readonly #clients = new Map<string, Client>();
  #scopes = 0;

  /** The address of the daemon. */
  endpoint(): Promise<string> {
    return (this.#starting ??= this.#start());
  }

  /** The name of a scope that was not used yet. */
  newScope(): string {
    return `scope-${String(++this.#scopes)}`;
  }

  /** A client of a scope, which lives as long as this. */
  async client(scope: string): Promise<Client> {
    const endpoint = await this.endpoint();
    const client = this.#clients.get(scope) ?? new Client({ endpoint, scope, timeoutMs: TIMEOUT_MS });
    this.#clients.set(scope, client);
    return client;
  }

  async close(): Promise<void> {
    for (const client of this.#clients.values()) client.close();
    await this.#stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #start(): Promise<string> {
    const serve = process.env["CONFORMANCE_SERVE"] ?? "backscroll serve"; // words of a shell
    const dataDir = join(this.directory, "data");
    const daemon = spawn("sh", ["-c", `exec ${serve} --data-dir "$0" --exit-with-parent`, dataDir], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    this.#stop = async () => {
      daemon.stdin.end();
      if (daemon.exitCode === null) await once(daemon, "exit");
    };
    await Promise.race([
      once(daemon.stdout, "data"),
      once(daemon, "exit").then(([code]) => {
        throw new Error(`the daemon (${serve}) ended with ${String(code)}`);
      }),
    ]);
    const ready = JSON.parse(readFileSync(join(dataDir, "endpoint.json"), "utf8")) as { endpoints: [string] };
    return ready.endpoints[0];
  }
}

/** Send any request, with bytes where the operation has bytes. */
export function request(client: Client, type: string, payload: object, requestId?: string): Promise<Answer<unknown>> {
  const { bytesFields = [] } = (OPERATIONS as Readonly<Record<string, OperationInfo | undefined>>)[type] ?? {};
  const fields = Object.entries(payload).map(([name, value]: [string, unknown]) => {
    if (!bytesFields.includes(name) || typeof value !== "string") return [name, value];
    const bytes = Buffer.from(value, "base64");
    return [name, bytes.toString("base64") === value ? new Uint8Array(bytes) : value];
  });
  const answer = client.answer.bind(client) as (
    type: string,
    payload: object,
    options: object,
  ) => Promise<Answer<unknown>>;
  return answer(type, Object.fromEntries(fields) as object, { requestId });
}
