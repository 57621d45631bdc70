/** The types, which the compiler checks; that it compiles is the test. */

import { test } from "node:test";
import { expectTypeOf } from "expect-type";
import {
  type AccessToken,
  type BatchedCommand,
  Client,
  type Media,
  type Message,
  type MessagePage,
  type MessageUpdates,
  type User,
} from "../src/index.js";
import type { ItemChange } from "../src/index.js";

void test("results have the types of their operations", () => {
  expectTypeOf<ReturnType<Client["getMessagePage"]>>().resolves.toEqualTypeOf<MessagePage>();
  expectTypeOf<ReturnType<Client["getUser"]>>().resolves.toEqualTypeOf<User | null>();
  expectTypeOf<ReturnType<Client["getMediaPart"]>>().resolves.toEqualTypeOf<Uint8Array>();
  expectTypeOf<ReturnType<Client["isUserBanned"]>>().resolves.toEqualTypeOf<boolean>();
});

void test("in updates null differs from what is left out", () => {
  expectTypeOf<{ senderName: null }>().toExtend<MessageUpdates>();
  expectTypeOf<{ senderName: "Ada" }>().toExtend<MessageUpdates>();
  expectTypeOf<{ content: null }>().not.toExtend<MessageUpdates>();
});

void test("known values are offered, and later ones allowed in replies", () => {
  expectTypeOf<"admin">().toExtend<AccessToken["right"]>();
  expectTypeOf<string>().toExtend<AccessToken["right"]>();
  expectTypeOf<"dream">().not.toExtend<Parameters<Client["createToken"]>[0]["right"]>();
});

void test("the noun of a change tells its value", () => {
  const valueOf = (change: ItemChange): unknown => {
    switch (change.noun) {
      case "message":
        expectTypeOf(change.value).toEqualTypeOf<Message | null | undefined>();
        return change.value?.content;
      case "media":
        expectTypeOf(change.value).toEqualTypeOf<Media | null | undefined>();
        return change.value?.mime;
      case "room":
      case "member":
      case "user":
      case "ban":
      case "current-user":
        return change.id;
      default:
        expectTypeOf(change.value).toEqualTypeOf<unknown>();
        expectTypeOf(change.noun).toExtend<string>();
        return change.value;
    }
  };
  expectTypeOf(valueOf).returns.toBeUnknown();
});

void test("a batch takes commands that may be in one, with their payloads", () => {
  expectTypeOf<{ type: "delete-message"; payload: { messageId: string } }>().toExtend<BatchedCommand>();
  expectTypeOf<{ type: "delete-message"; payload: { roomId: string } }>().not.toExtend<BatchedCommand>();
  expectTypeOf<{ type: "put-media"; payload: { parts: string[]; mime: string } }>().not.toExtend<BatchedCommand>();
});
