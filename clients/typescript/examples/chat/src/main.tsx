import { render } from "preact";
import { DatabaseService } from "@backscroll/facade";
import { App } from "./app.js";
import { openStore } from "./open_store.js";

const store = await openStore();
const db = new DatabaseService(store);
const root = document.getElementById("app");
if (root !== null) render(<App db={db} store={store} />, root);
Object.assign(globalThis, { db }); // to try it in the browser's console: await db.getAllRooms()
