import { render } from "preact";
import { DatabaseService, type Store } from "@backscroll/facade";
import { App } from "./app.js";
import { openStore } from "./open_store.js";
import { Ended } from "./parts.js";
import { messageOf } from "./retry.js";

const root = document.getElementById("app") ?? document.body;

function start(store: Store, ending: Promise<string>): void {
  const db = new DatabaseService(store);
  render(<App db={db} store={store} ended={undefined} />, root);
  void ending.then((why) => {
    render(<App db={db} store={store} ended={why} />, root);
  });
  Object.assign(globalThis, { db }); // to try it in the browser's console: await db.getAllRooms()
}

const { promise: ending, resolve: ended } = Promise.withResolvers<string>();
try {
  start(await openStore(ended), ending);
} catch (error) {
  render(<Ended why={messageOf(error)} />, root);
}
