/**
 * Runs the suite against each backend, and prints for each method of `DatabaseService` the tests that show it and whether
 * they passed, as the runner's own results say. Fails if a method has no test, or if a test did not pass somewhere.
 *
 * `node methods.mjs --no-run` prints the table of the results that are there.
 */

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const METHODS = {
  Messages: "saveMessage getMessages getMessageById deleteMessage updateMessage clearRoomMessages",
  Reactions: "saveReaction removeReaction getReactionsForMessage",
  Users: "saveUser getUser getCurrentUser setCurrentUserId getUsersByRoom updateUser",
  Rooms: "saveRoom getRoom getAllRooms deleteRoom updateRoom",
  Bans: "saveBan removeBan getBansForRoom isUserBanned",
  Attachments: "saveAttachment getAttachmentsForMessage getAllAttachments deleteAttachmentsForMessage",
  Lifecycle: "initialize clearAllData",
  Beyond: "getMessagePage getChanges watch switchScope appResume",
};
/** The runs of vitest, and how the table calls them. */
const BACKENDS = { daemon: "daemon", indexeddb: "IndexedDB (fake)", chromium: "IndexedDB (Chromium)" };

const folder = fileURLToPath(new URL(".", import.meta.url));
const results = fileURLToPath(new URL("build/results/", import.meta.url));

function run(project) {
  const file = `${results}${project}.json`;
  const options = ["--reporter=json", `--outputFile=${file}`, "--reporter=dot"];
  const { status } = spawnSync("npx", ["vitest", "run", "--project", project, ...options], {
    cwd: folder,
    stdio: "inherit",
  });
  return status;
}

/** The status of each test of a run, by the name of its method and its own. */
function read(project) {
  const { testResults } = JSON.parse(readFileSync(`${results}${project}.json`, "utf8"));
  const statuses = new Map();
  for (const { assertionResults } of testResults) {
    for (const { ancestorTitles, title, status } of assertionResults) {
      statuses.set(`${ancestorTitles.join(" ")} > ${title}`, status);
    }
  }
  return statuses;
}

const problems = [];
if (!process.argv.includes("--no-run")) {
  rmSync(results, { recursive: true, force: true });
  mkdirSync(results, { recursive: true });
  for (const [project, name] of Object.entries(BACKENDS)) {
    // It may fail although each test passed: by an error that no test caught, or in a hook.
    if (run(project) !== 0) problems.push(`the run on ${name} failed`);
  }
}
const runs = Object.keys(BACKENDS).map(read);
const tests = [...new Set(runs.flatMap((run) => [...run.keys()]))];

console.log(`| method | test | ${Object.values(BACKENDS).join(" | ")} |`);
console.log(`|---|---|${"---|".repeat(runs.length)}`);
for (const method of Object.values(METHODS).flatMap((names) => names.split(" "))) {
  const own = tests.filter((test) => test.startsWith(`${method} > `));
  if (own.length === 0) problems.push(`${method} has no test`);
  for (const [index, test] of own.entries()) {
    const statuses = runs.map((run) => run.get(test) ?? "did not run");
    const name = test.slice(method.length + " > ".length);
    console.log(`| ${index === 0 ? `\`${method}\`` : ""} | ${name} | ${statuses.join(" | ")} |`);
  }
}
for (const test of tests) {
  for (const [index, run] of runs.entries()) {
    const status = run.get(test) ?? "did not run";
    if (status !== "passed") problems.push(`${test}: ${status} on ${Object.values(BACKENDS)[index]}`);
  }
}
console.log(`\n${tests.length} tests on ${runs.length} backends.`);
for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;
