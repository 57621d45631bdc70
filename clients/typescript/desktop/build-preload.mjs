// Writes dist/preload.cjs: a sandboxed preload can require nothing but electron, so it is one file of CommonJS.
import { readFileSync, writeFileSync } from "node:fs";

const dist = new URL("dist/", import.meta.url);
const code = readFileSync(new URL("preload.js", dist), "utf8").replace("export function", "function");
if (/^(import|export) /m.test(code)) throw new Error("preload.ts must import nothing and export one function");
writeFileSync(
  new URL("preload.cjs", dist),
  `"use strict";
const { contextBridge, ipcRenderer } = require("electron");
${code}
exposeBridge(contextBridge, ipcRenderer);
`,
);
