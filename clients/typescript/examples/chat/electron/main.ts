/** The desktop variant in Electron: its main process. It shows the page that `npm run build` made. */

import { join } from "node:path";
import { exposeStore, openStore, preloadPath } from "@backscroll/desktop";
import { app, BrowserWindow, ipcMain } from "electron";

const PAGE = join(import.meta.dirname, "../../web/index.html");

await app.whenReady();
const store = await openStore({ dataDir: join(app.getPath("userData"), "data") });
const exposed = exposeStore(ipcMain, store);

function openWindow(): void {
  const window = new BrowserWindow({
    width: 1_000,
    height: 700,
    webPreferences: { preload: preloadPath, sandbox: true },
  });
  // The page chooses the account itself here; an application with a sign-in checks it: `mayUse: (scope) => …`.
  exposed.admit(window.webContents, { origin: "file://" });
  void window.loadFile(PAGE);
}

openWindow();
app.on("activate", () => {
  if (BrowserWindow.getAllWindows().length === 0) openWindow();
});
app.on("window-all-closed", () => {
  if (process.platform !== "darwin") app.quit();
});
app.on("will-quit", () => {
  exposed.close();
  void store.close();
});
