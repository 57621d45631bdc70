import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { InvalidError, NoReplyError, UnavailableError } from "backscroll/language";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { DatabaseService, type LiveQuery } from "../../src/index.js";
import { HeldStore, settled } from "./held-store.js";

let store: HeldStore;
let database: DatabaseService;

beforeEach(async () => {
  store = new HeldStore();
  database = new DatabaseService(store);
  void database.initialize("ada");
  await store.flow();
});

afterEach(() => {
  vi.useRealTimers();
});

function messages(roomId = "home"): LiveQuery<unknown> {
  return database.watch("get-messages", { roomId });
}

function ignore(): void {
  // the test asks for the value itself
}

describe("a live query asks", () => {
  test("with its first subscriber, and not before", async () => {
    const live = messages();
    expect(store.count("get-messages")).toBe(0);
    live.subscribe(ignore);
    live.subscribe(ignore);
    expect(store.count("get-messages")).toBe(1);
    await store.flow();
    expect(live.value).toMatchObject([{ content: "ada:0" }]);
  });

  test("once more for a burst while it is asking", async () => {
    const live = messages();
    live.subscribe(ignore);
    for (let each = 0; each < 100; each += 1) {
      void database.clearRoomMessages("home");
      store.change("home");
    }
    expect(store.count("get-messages")).toBe(1);
    await store.fulfil("get-messages");
    expect(live.value).toMatchObject([{ content: "ada:0" }]);
    expect(store.count("get-messages")).toBe(2);
    await store.fulfil("get-messages");
    expect(live.value).toMatchObject([{ content: "ada:100" }]);
    expect(store.count("get-messages")).toBe(2);
  });

  test("only about changes of what it reads", async () => {
    messages().subscribe(ignore);
    await store.flow();
    store.change("work");
    store.emit({ type: "changed", changes: [{ noun: "user", id: "bo", seq: 1, at: 1, requestId: "r" }] });
    store.emit({ type: "connected" });
    expect(store.count("get-messages")).toBe(1);
    store.emit({ type: "changed", changes: [{ noun: "message", gone: true, seq: 1, at: 1, requestId: "r" }] });
    expect(store.count("get-messages")).toBe(2);
  });

  test("after a gap, whatever it reads", async () => {
    messages().subscribe(ignore);
    database.watch("get-user", { userId: "bo" }).subscribe(ignore);
    await store.flow();
    store.emit({ type: "gap" });
    expect([store.count("get-messages"), store.count("get-user")]).toEqual([2, 2]);
  });

  test("when an account is opened after it", async () => {
    const early = new DatabaseService(store);
    const live = early.watch("get-messages", { roomId: "home" });
    live.subscribe(ignore);
    await store.flow();
    expect(store.count("get-messages")).toBe(0);
    void early.initialize("bo");
    await store.flow();
    expect(live.value).toMatchObject([{ content: "bo:0" }]);
  });
});

describe("an equal result", () => {
  test("keeps the value's identity, and is not told", async () => {
    const live = messages();
    const told = vi.fn();
    live.subscribe(told);
    await store.flow();
    const before = live.value;
    store.change("home");
    await store.flow();
    expect(store.count("get-messages")).toBe(2);
    expect(live.value).toBe(before);
    expect(told).toHaveBeenCalledTimes(1);
  });
});

describe("an error", () => {
  test("leaves the value, and is asked about when connected", async () => {
    const live = messages();
    live.subscribe(ignore);
    await store.flow();
    store.change("home");
    const problem = new UnavailableError("no daemon", { code: "unavailable", retryable: true });
    await store.reject("get-messages", problem);
    expect(live.value).toMatchObject([{ content: "ada:0" }]);
    expect(live.error.value).toBe(problem);
    store.emit({ type: "disconnected", problem });
    expect(database.connection.value).toBe("disconnected");
    store.emit({ type: "connected" });
    expect(database.connection.value).toBe("connected");
    await store.flow();
    expect(live.error.value).toBeUndefined();
  });

  test("that may pass is asked about in longer pauses", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const live = messages();
    const end = live.subscribe(ignore);
    const asked: number[] = [];
    for (const wait of [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
      await store.reject("get-messages", new NoReplyError("nothing came"));
      vi.advanceTimersByTime(wait - 1);
      asked.push(store.held.length);
      vi.advanceTimersByTime(1);
      asked.push(store.held.length);
    }
    expect(asked).toEqual(Array.from({ length: 7 }, () => [0, 1]).flat());
    await store.reject("get-messages", new NoReplyError("nothing came"));
    end();
    expect(vi.getTimerCount()).toBe(0);
  });

  test("that stays is not asked about", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const live = messages("");
    live.subscribe(ignore);
    await store.reject("get-messages", new InvalidError("too short", { code: "invalid" }));
    expect(vi.getTimerCount()).toBe(0);
    expect(live.error.value).toBeInstanceOf(InvalidError);
  });
});

describe("the last unsubscription", () => {
  test("releases everything", async () => {
    const ends = Array.from({ length: 1_000 }, (_, index) => messages(`room ${String(index)}`).subscribe(ignore));
    await store.flow();
    for (const end of ends) {
      end();
      end();
    }
    const asked = store.count("get-messages");
    store.emit({ type: "gap" });
    expect(store.count("get-messages")).toBe(asked);
    expect([store.subscriptions, store.listeners.size]).toEqual([1, 1]);
    database.close();
    expect(store.listeners.size).toBe(0);
  });

  test("empties the query; a new subscriber asks anew", async () => {
    const live = messages();
    const [one, other] = [live.subscribe(ignore), live.subscribe(ignore)];
    one();
    await store.flow();
    expect(live.value).toHaveLength(1);
    other();
    expect(live.value).toBeUndefined();
    live.subscribe(ignore)();
    await store.flow();
    expect(live.value).toBeUndefined(); // what came after the unsubscription is dropped
    live.subscribe(ignore);
    await store.flow();
    expect(live.value).toHaveLength(1);
  });

  test("leaves a live query to the garbage collector", async () => {
    const references = Array.from({ length: 10 }, (_, index) => {
      const live = messages(`room ${String(index)}`);
      live.subscribe(ignore)();
      return new WeakRef(live);
    });
    await store.flow();
    setFlagsFromString("--expose-gc");
    (runInNewContext("gc") as () => void)();
    await settled();
    expect(references.filter((each) => each.deref() !== undefined)).toEqual([]);
  });
});

describe("a listener", () => {
  test("that throws keeps no other from being told", async () => {
    const thrown: unknown[] = [];
    const catching = (error: unknown): void => {
      thrown.push(error);
    };
    const [others] = [process.listeners("uncaughtException")];
    process.removeAllListeners("uncaughtException").on("uncaughtException", catching);
    const live = messages();
    const told = vi.fn();
    live.subscribe(() => {
      throw new Error("a mistake of the application");
    });
    live.subscribe(told);
    await store.flow();
    expect(told).toHaveBeenCalledTimes(1);
    expect(thrown).toMatchObject([{ message: "a mistake of the application" }]);
    process.off("uncaughtException", catching);
    for (const each of others) process.on("uncaughtException", each);
  });

  test("may unsubscribe and switch while it is told", async () => {
    const live = messages();
    const second = vi.fn();
    const end = live.subscribe(() => {
      end();
      endSecond();
      void database.switchScope("bo");
    });
    const endSecond = live.subscribe(second);
    await store.flow();
    expect(second).not.toHaveBeenCalled();
    expect(live.value).toBeUndefined();
    expect(database.isReady.value).toBe(true);
  });
});
