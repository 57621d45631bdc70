/** Finding the program that starts a daemon. */

import resolve from "./resolve.cjs";

/** The packages that bring a daemon, which npm installs where they fit. */
const PACKAGES: Readonly<Record<string, string>> = { "linux-x64": "@backscroll/daemon-linux-x64-gnu" };

/** A program that starts a daemon, and what to do if it cannot be started. */
export interface DaemonProgram {
  command: readonly string[];
  advice: string;
}

/** The command if one is given; or else the program of this platform's package; or else `backscroll` on the PATH. */
export function daemonProgram(command?: readonly string[]): DaemonProgram {
  if (command !== undefined) return { command, advice: "check the option `command`" };
  const platform = `${process.platform}-${process.arch}`;
  const name = PACKAGES[platform];
  if (name === undefined) {
    const advice = `install the Python package \`backscroll\`, since there is no npm package of the daemon for ${platform}`;
    return onPath(advice);
  }
  const program = installed(`${name}/backscroll/backscroll`);
  if (program === undefined) {
    return onPath(
      `the npm package ${name} is not installed, perhaps because optional dependencies were left out; add it`,
    );
  }
  return { command: [program], advice: `install the npm package ${name} again; it needs a Linux with glibc` };
}

function onPath(advice: string): DaemonProgram {
  const otherwise = "or put `backscroll` on the PATH, or name a program in the option `command`";
  return { command: ["backscroll"], advice: `${advice}, ${otherwise}` };
}

function installed(file: string): string | undefined {
  try {
    // Programs cannot be started inside of Electron's archives; its packagers put them beside.
    return resolve(file).replace(/\bapp\.asar(?=[\\/])/, "app.asar.unpacked");
  } catch {
    return undefined;
  }
}
