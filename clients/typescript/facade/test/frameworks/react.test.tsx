import { StrictMode, useState } from "react";
import { createRoot, type Root } from "react-dom/client";
import { flushSync } from "react-dom";
import { afterEach, beforeEach, expect, test } from "vitest";
import { DatabaseService } from "../../src/index.js";
import { useReadable, useWatch } from "../../src/react.js";
import { HeldStore, settled } from "../unit/held-store.js";

let store: HeldStore;
let database: DatabaseService;
let root: Root;
let element: HTMLElement;
let renders = 0;

beforeEach(() => {
  store = new HeldStore();
  database = new DatabaseService(store);
  element = document.createElement("main");
  document.body.append(element);
  root = createRoot(element);
  renders = 0;
});

afterEach(() => {
  root.unmount();
  element.remove();
});

function Messages({ roomId }: { roomId: string }) {
  renders += 1;
  const { value, error } = useWatch(database, "get-messages", { roomId });
  return <p>{error?.message ?? value?.map(({ content }) => content).join() ?? "…"}</p>;
}

function Application() {
  const isReady = useReadable(database.isReady);
  const [roomId, setRoomId] = useState("home");
  if (!isReady) return <p>Opening</p>;
  return (
    <>
      <Messages roomId={roomId} />
      <button
        onClick={() => {
          setRoomId("work");
        }}
      />
    </>
  );
}

async function text(): Promise<string> {
  await settled();
  return element.textContent;
}

test("hooks show the newest value, and nothing after a switch", async () => {
  flushSync(() => {
    root.render(<Application />);
  });
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
});

test("an equal result does not render again", async () => {
  void database.initialize("ada");
  await store.flow();
  flushSync(() => {
    root.render(<Messages roomId="home" />);
  });
  await store.flow();
  expect(await text()).toBe("ada:0");
  const before = renders;
  store.emit({ type: "gap" });
  await store.flow();
  expect(store.count("get-messages")).toBe(2);
  await settled();
  expect(renders).toBe(before);
});

test("an equal payload asks once, another asks anew", async () => {
  void database.initialize("ada");
  await store.flow();
  flushSync(() => {
    root.render(<Application />);
  });
  await store.flow();
  flushSync(() => {
    root.render(<Application />);
  });
  await store.flow();
  expect(store.count("get-messages")).toBe(1);
  element.querySelector("button")?.click();
  await store.flow();
  expect(store.count("get-messages")).toBe(2);
});

test("an error is rendered", async () => {
  void database.initialize("ada");
  await store.flow();
  flushSync(() => {
    root.render(<Messages roomId="home" />);
  });
  await settled();
  await store.reject("get-messages", new Error("no such room"));
  expect(await text()).toBe("no such room");
});

test("an unmounted component leaves nothing behind", async () => {
  void database.initialize("ada");
  await store.flow();
  flushSync(() => {
    root.render(
      <StrictMode>
        <Application />
      </StrictMode>,
    );
  });
  await store.flow();
  expect(await text()).toBe("ada:0");
  flushSync(() => {
    root.render(null);
  });
  await settled();
  const asked = store.count("get-messages");
  store.emit({ type: "gap" });
  expect(store.count("get-messages")).toBe(asked);
});
