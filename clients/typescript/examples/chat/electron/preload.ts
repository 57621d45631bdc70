/**
 * A preload of the application's own, if it exposes more than the store; the main process then names its bundled file
 * instead of `preloadPath`.
 */

import { exposeBridge } from "@backscroll/desktop/preload";
import { contextBridge, ipcRenderer } from "electron";

exposeBridge(contextBridge, ipcRenderer);
