import type { Store } from "@backscroll/facade";

/** Where this page's data is: in the daemon, behind the bridge of the desktop application, or else in IndexedDB. */
export async function openStore(): Promise<Store> {
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
    return bridgeStore(await socketBridge(token)); // see desktop/main.ts
  }
  const { openBrowserStore } = await import("@backscroll/browser");
  return openBrowserStore();
}
