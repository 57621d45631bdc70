/**
 * The runs of the tests. `test/suite` is one set of files, run against each backend: `daemon` and `indexeddb` in Node,
 * `chromium` with IndexedDB in a real browser. `test/unit` needs no backend, `test/histories` compares two of them,
 * `test/frameworks` is React and Angular in a real browser, and `test/application` is what README.md shows.
 */

import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";

/** The browser: the environment variable CHROMIUM, or Debian's. */
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

const browser = {
  enabled: true,
  headless: true,
  screenshotFailures: false,
  provider: playwright({ launchOptions: { executablePath: CHROMIUM, args: ["--no-sandbox"] } }),
  instances: [{ browser: "chromium" as const }],
};

export default defineConfig({
  test: {
    testTimeout: 20_000,
    hookTimeout: 30_000,
    maxWorkers: 2,
    projects: [
      { extends: true, test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      { extends: true, test: { name: "application", include: ["test/application/**/*.test.ts"] } },
      { extends: true, test: { name: "frameworks", include: ["test/frameworks/**/*.test.{ts,tsx}"], browser } },
      { extends: true, test: { name: "histories", include: ["test/histories/**/*.test.ts"], testTimeout: 300_000 } },
      {
        extends: true,
        test: { name: "daemon", include: ["test/suite/**/*.test.ts"], setupFiles: ["test/backends/daemon.ts"] },
      },
      {
        extends: true,
        test: {
          name: "indexeddb",
          include: ["test/suite/**/*.test.ts"],
          setupFiles: ["fake-indexeddb/auto", "test/backends/indexeddb.ts"],
        },
      },
      {
        extends: true,
        test: {
          name: "chromium",
          include: ["test/suite/**/*.test.ts"],
          setupFiles: ["test/backends/indexeddb.ts"],
          browser,
        },
      },
    ],
  },
});
