import type { Store } from "@backscroll/facade";

/**
 * Where this page's data is: in the daemon, behind the bridge of the desktop application, or else in IndexedDB. `ended`
 * is called when the page has outlived the application, with what to do; only the WebSocket can.
 */
export async function openStore(ended: (why: string) => void): Promise<Store> {
  if (window.backscroll !== undefined) {
    const { bridgeStore } = await import("@backscroll/desktop/renderer");
    return bridgeStore(window.backscroll); // Electron: see electron/preload.ts
  }
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    const [{ bridgeStore }, { socketBridge }] = await Promise.all([
      import("@backscroll/desktop/renderer"),
      import("./socket_bridge.js"),
    ]);
    return bridgeStore(await socketBridge(token, ended)); // see desktop/main.ts
  }
  const { openBrowserStore } = await import("@backscroll/browser");
  return openBrowserStore();
}
