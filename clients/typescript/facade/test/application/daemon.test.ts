/** A window while its daemon dies and is started again, over the whole bridge of the desktop. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openStore } from "@backscroll/desktop";
import { expect, onTestFinished, test, vi } from "vitest";
import { DatabaseService } from "../../src/index.js";
import { openBridge } from "../backends/bridge.js";

test("a window goes on after its daemon was killed", { timeout: 60_000 }, async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "backscroll-facade-"));
  const pid = (): number => (JSON.parse(readFileSync(join(dataDir, "endpoint.json"), "utf8")) as { pid: number }).pid;
  const command = [process.env["BACKSCROLL"] ?? "backscroll"];
  // Long enough for a daemon that is started again on a busy machine.
  const desktop = await openStore({ dataDir, command, timeoutMs: 30_000 });
  onTestFinished(async () => {
    await desktop.close();
    process.kill(pid(), "SIGKILL");
    rmSync(dataDir, { recursive: true, force: true });
  });
  const database = new DatabaseService(openBridge(desktop).store);
  await database.initialize("ada");
  const live = database.watch("get-messages", { roomId: "home" });
  const lengths: (number | undefined)[] = [];
  live.subscribe(() => lengths.push(live.value?.length));
  const told: string[] = [];
  database.connection.subscribe(() => told.push(database.connection.value));
  await database.saveMessage({ id: "m1", roomId: "home", content: "before", timestamp: 1 });
  await vi.waitFor(() => {
    expect(live.value).toHaveLength(1);
  }, 10_000);

  const first = pid();
  process.kill(first, "SIGKILL");
  await vi.waitFor(() => {
    expect(told).toContain("disconnected");
  }, 10_000);
  const saving = database.saveMessage({ id: "m2", roomId: "home", content: "meanwhile", timestamp: 2 });
  expect(database.isReady.value).toBe(true);
  expect(live.value).toHaveLength(1);
  await saving;
  await vi.waitFor(() => {
    expect(live.value).toHaveLength(2);
  }, 20_000);
  expect(told).toEqual(["disconnected", "connected"]);
  expect(lengths).not.toContain(undefined);
  expect(pid()).not.toBe(first);
});
