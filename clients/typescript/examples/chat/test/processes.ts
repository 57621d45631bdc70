/** The processes of the desktop variant. */

import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const START_MS = 30_000;

/** The address that a server prints when it is ready. */
export function printedUrl(child: ChildProcess): Promise<string> {
  return new Promise((found, fail) => {
    const timer = setTimeout(() => {
      fail(new Error("the example printed no address in time"));
    }, START_MS);
    let printed = "";
    child.stdout?.on("data", (data: Buffer) => {
      printed += data.toString();
      const url = /^Open (\S+)$/m.exec(printed)?.[1];
      if (url === undefined) return;
      clearTimeout(timer);
      found(url);
    });
    child.once("exit", (code) => {
      clearTimeout(timer);
      fail(new Error(`the example ended with exit code ${String(code)}`));
    });
  });
}

/** Stop a process that was started here, and wait for its end. */
export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await ended;
}

export const daemonPid = (dataDir: string): number => Number(readFileSync(join(dataDir, "pid"), "utf8").trim());
