/** The daemon behind the whole bridge of the desktop. Each file of the suite has a daemon of its own. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DesktopStore, openStore, type Session } from "@backscroll/desktop";
import { afterAll, beforeAll } from "vitest";
import { useBackend } from "../suite/backend.js";
import { openBridge } from "./bridge.js";

const dataDir = mkdtempSync(join(tmpdir(), "backscroll-facade-"));
let desktop: DesktopStore | undefined;
const sessions: Session[] = [];

beforeAll(async () => {
  const command = [process.env["BACKSCROLL"] ?? "backscroll"];
  desktop = await openStore({ dataDir, command, timeoutMs: 15_000 }); // for busy machines
});

afterAll(async () => {
  if (desktop === undefined) return;
  await desktop.close();
  const { pid } = JSON.parse(readFileSync(join(dataDir, "endpoint.json"), "utf8")) as { pid: number };
  process.kill(pid, "SIGKILL");
  rmSync(dataDir, { recursive: true, force: true });
});

useBackend({
  openStore: () => {
    if (desktop === undefined) return Promise.reject(new Error("the daemon was not started"));
    const { session, store } = openBridge(desktop);
    sessions.push(session);
    return Promise.resolve(store);
  },
  closeStores: async () => {
    await Promise.all(sessions.splice(0).map((session) => session.close()));
  },
});
