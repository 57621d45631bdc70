import "@angular/compiler"; // templates of tests are compiled here
import {
  type ApplicationRef,
  Component,
  createComponent,
  inject,
  Injector,
  provideZonelessChangeDetection,
  runInInjectionContext,
} from "@angular/core";
import { createApplication } from "@angular/platform-browser";
import { afterEach, beforeEach, expect, test } from "vitest";
import { provideDatabase, toSignal } from "../../src/angular.js";
import { DatabaseService } from "../../src/index.js";
import { HeldStore, settled } from "../unit/held-store.js";

/** What an application declares with `@Component`. */
class Messages {
  readonly #database = inject(DatabaseService);
  readonly isReady = toSignal(this.#database.isReady);
  readonly messages = toSignal(this.#database.watch("get-messages", { roomId: "home" }));
}
Component({
  selector: "chat-messages",
  template: `@if (isReady()) {
    @for (message of messages(); track message.id) {
      {{ message.content }}
    }
  } @else {
    Opening
  }`,
})(Messages);

let store: HeldStore;
let application: ApplicationRef;
let element: HTMLElement;

beforeEach(async () => {
  store = new HeldStore();
  element = document.createElement("chat-messages");
  document.body.append(element);
  application = await createApplication({
    providers: [provideZonelessChangeDetection(), provideDatabase(() => store)],
  });
});

afterEach(() => {
  if (!application.destroyed) application.destroy();
  element.remove();
});

async function text(): Promise<string> {
  await settled();
  await application.whenStable();
  return element.textContent.trim();
}

test("signals show the newest value, and nothing after a switch", async () => {
  const database = application.injector.get(DatabaseService);
  const component = createComponent(Messages, {
    environmentInjector: application.injector,
    hostElement: element,
  });
  application.attachView(component.hostView);
  expect(await text()).toBe("Opening");
  void database.initialize("ada");
  await store.flow();
  expect(await text()).toBe("ada:0");
  void database.clearRoomMessages("home");
  store.change("home");
  await store.flow();
  expect(await text()).toBe("ada:1");
  void database.switchScope("bo");
  expect(await text()).toBe("Opening");
  await store.flow();
  expect(await text()).toBe("bo:0");
  component.destroy();
  const asked = store.count("get-messages");
  store.emit({ type: "gap" });
  expect(store.count("get-messages")).toBe(asked);
});

test("the database is closed with the application", async () => {
  const database = application.injector.get(DatabaseService);
  expect(application.injector.get(DatabaseService)).toBe(database);
  application.destroy();
  expect(store.listeners.size).toBe(0);
  await expect(database.initialize("ada")).rejects.toThrow("the database was closed");
});

test("a signal needs only something that destroys it", async () => {
  const destroying: (() => void)[] = [];
  const destroyRef = { onDestroy: (act: () => void) => (destroying.push(act), () => undefined) };
  const database = new DatabaseService(store);
  const isReady = toSignal(database.isReady, destroyRef);
  const connection = runInInjectionContext(application.injector.get(Injector), () => toSignal(database.connection));
  expect([isReady(), connection()]).toEqual([false, "connected"]);
  void database.initialize("ada");
  await store.flow();
  expect(isReady()).toBe(true);
  for (const act of destroying) act();
  void database.switchScope("bo");
  expect(isReady()).toBe(true);
});
