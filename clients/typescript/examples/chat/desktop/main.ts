/**
 * The desktop variant without Electron: this process is in the place of Electron's main process, a browser in that of
 * its windows, and a WebSocket in that of its channel. electron/main.ts does the same in Electron.
 */

import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { type DesktopStore, openStore } from "@backscroll/desktop";
import { serve } from "./serve.js";

const HELP = `Usage: npm run desktop -- [options]

  --data-dir DIRECTORY  where the data is: ./data if left out
  --port PORT           the port of the page: 5180 if left out, 0 for any free one
  --daemon PROGRAM      the program of the daemon, if it is neither that of the npm package nor on the PATH
  --help                print this`;

function optionsOf(words: readonly string[]) {
  const { values } = parseArgs({
    args: [...words],
    options: {
      "data-dir": { type: "string", default: "./data" },
      // A port of its own, because the browser keeps the last place of each account by the page's address.
      port: { type: "string", default: "5180" },
      daemon: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65_535) throw new Error("--port has to be a number from 0 to 65535");
  return { ...values, port };
}

type Options = ReturnType<typeof optionsOf>;

async function main(): Promise<void> {
  const options = optionsOf(process.argv.slice(2));
  if (options.help) {
    console.log(HELP);
    return;
  }
  const store = await openStore({
    dataDir: options["data-dir"],
    ...(options.daemon !== undefined && { command: [options.daemon] }),
    onProblem: (problem) => {
      console.error(messageOf(problem));
    },
  });
  console.log(`Open ${await servePage(store, options)}`);
  const stop = (): void => {
    void store.close().finally(() => process.exit());
  };
  process.once("SIGINT", stop);
  process.once("SIGTERM", stop);
}

async function servePage(store: DesktopStore, { port, daemon }: Options): Promise<string> {
  try {
    return await serve({
      port,
      token: randomBytes(32).toString("base64url"),
      connect: (send) => store.session({ send }),
    });
  } catch (error) {
    await store.close();
    if (!(error instanceof Error && "code" in error && error.code === "EADDRINUSE")) throw error;
    const used = `port ${String(port)} is in use, perhaps because the example is running already; --port names another one`;
    throw new Error([used, ...daemonProblem(daemon)].join("\n"), { cause: error });
  }
}

/** A daemon that was running already was not started with the option, so that nobody has noticed yet if it is wrong. */
function daemonProblem(daemon: string | undefined): string[] {
  const problem = daemon === undefined ? undefined : spawnSync(daemon, ["--version"]).error;
  return problem === undefined ? [] : [`--daemon: the program cannot be started: ${problem.message}`];
}

/** What went wrong, with the name that an option has here. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message.replaceAll("`command`", "`--daemon`") : String(error);
}

try {
  await main();
} catch (error) {
  console.error(messageOf(error));
  process.exit(1);
}
