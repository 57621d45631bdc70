import { expect, test } from "vitest";
import { DatabaseService } from "../../src/index.js";
import { backend } from "./backend.js";

test("a saved message is read", async () => {
  const database = new DatabaseService(await backend().openStore());
  await database.initialize("ada");
  await database.saveMessage({ id: "m1", roomId: "home", content: "Hello", timestamp: 1 });
  const messages = await database.getMessages("home", 50);
  expect(messages).toMatchObject([{ id: "m1", content: "Hello" }]);
});
