/** The types, which the compiler checks; that it compiles is the test. */

import { test } from "node:test";
import { expectTypeOf } from "expect-type";
import {
  type AccessToken,
  type Answer,
  BackscrollError,
  type BatchedCommand,
  CallerError,
  type Changes,
  Client,
  ConflictError,
  DaemonError,
  type DeletedMessages,
  type FailedCommand,
  FeedGapError,
  type FeedIterator,
  type HealthReport,
  type JsonObject,
  type Logger,
  type Media,
  type Message,
  type MessageInput,
  type MessagePage,
  type MessageUpdates,
  NoReplyError,
  type OperationName,
  type Payloads,
  type Results,
  type RoomUpdates,
  type ScopeInfo,
  type Session,
  StorageError,
  type User,
  type Watched,
} from "../src/index.js";
import type { ItemChange } from "../src/index.js";

type ResultOf<Method extends keyof Client> = Client[Method] extends (...parameters: never[]) => Promise<infer Result>
  ? Result
  : never;

void test("results have the types of their operations, of every kind", () => {
  expectTypeOf<ResultOf<"saveMessage">>().toEqualTypeOf<null>(); // a command
  expectTypeOf<ResultOf<"deleteMessagesBefore">>().toEqualTypeOf<DeletedMessages>();
  expectTypeOf<ResultOf<"createSession">>().toEqualTypeOf<Session>();
  expectTypeOf<ResultOf<"deleteExpiredSessions">>().toEqualTypeOf<number>();
  expectTypeOf<ResultOf<"putMediaPart">>().toEqualTypeOf<string>();
  expectTypeOf<ResultOf<"batch">>().toEqualTypeOf<unknown[]>();
  expectTypeOf<ResultOf<"getMessagePage">>().toEqualTypeOf<MessagePage>(); // a query
  expectTypeOf<ResultOf<"getUser">>().toEqualTypeOf<User | null>();
  expectTypeOf<ResultOf<"getMessages">>().toEqualTypeOf<Message[]>();
  expectTypeOf<ResultOf<"isUserBanned">>().toEqualTypeOf<boolean>();
  expectTypeOf<ResultOf<"getMediaPart">>().toEqualTypeOf<Uint8Array>();
  expectTypeOf<ResultOf<"getScopeInfo">>().toEqualTypeOf<ScopeInfo>(); // maintenance
  expectTypeOf<ResultOf<"listScopes">>().toEqualTypeOf<string[]>();
  expectTypeOf<ResultOf<"health">>().toEqualTypeOf<HealthReport>(); // built-in
  expectTypeOf<ResultOf<"describe">>().toEqualTypeOf<JsonObject>();
});

void test("a payload is needed where a field of it is", () => {
  expectTypeOf<[]>().toExtend<Parameters<Client["listUsers"]>>();
  expectTypeOf<[]>().not.toExtend<Parameters<Client["getUser"]>>();
  expectTypeOf<[{ userId: string }]>().toExtend<Parameters<Client["getUser"]>>();
  expectTypeOf<[{ userId: number }]>().not.toExtend<Parameters<Client["getUser"]>>();
  expectTypeOf<{ userId: null }>().toExtend<Payloads["set-current-user-id"]>(); // null is a value there
  expectTypeOf<object>().not.toExtend<Payloads["set-current-user-id"]>();
});

void test("operations can be called by name, also those of a later level", () => {
  expectTypeOf<Client["call"]>().toBeCallableWith("get-user", { userId: "ada" });
  const call = (client: Client) => client.call("get-user", { userId: "ada" });
  expectTypeOf(call).returns.resolves.toEqualTypeOf<User | null>();
  const later = (client: Client) => client.call("summarise-room", { roomId: "r1" });
  expectTypeOf(later).returns.resolves.toBeUnknown();
  const answer = (client: Client) => client.answer("get-user", { userId: "ada" });
  expectTypeOf(answer).returns.resolves.toEqualTypeOf<Answer<User | null>>();
  expectTypeOf<keyof Results>().toEqualTypeOf<OperationName>();
});

void test("in updates null differs from what is left out", () => {
  expectTypeOf<MessageUpdates["senderName"]>().toEqualTypeOf<string | null | undefined>(); // set, cleared, unchanged
  expectTypeOf<MessageUpdates["content"]>().toEqualTypeOf<string | undefined>(); // cannot be cleared
  expectTypeOf<{ senderName: null }>().toExtend<MessageUpdates>();
  expectTypeOf<{ senderName: "Ada" }>().toExtend<MessageUpdates>();
  expectTypeOf<object>().toExtend<MessageUpdates>();
  expectTypeOf<{ content: null }>().not.toExtend<MessageUpdates>();
  expectTypeOf<{ sendreName: "Ada" }>().not.toExtend<MessageUpdates>(); // it has nothing in common with updates
  expectTypeOf<{ name: null }>().not.toExtend<RoomUpdates>();
});

void test("in replies what is unset is left out, and never null", () => {
  expectTypeOf<Message["senderName"]>().toEqualTypeOf<string | undefined>();
  expectTypeOf<Message["isDeleted"]>().toEqualTypeOf<boolean>();
  expectTypeOf<MessageInput["senderName"]>().toEqualTypeOf<string | null | undefined>();
  expectTypeOf<MessageInput>().not.toHaveProperty("damaged"); // only a reply has it
});

void test("known values are offered, and later ones allowed in replies", () => {
  expectTypeOf<"admin">().toExtend<AccessToken["right"]>();
  expectTypeOf<string>().toExtend<AccessToken["right"]>();
  expectTypeOf<"dream">().not.toExtend<Parameters<Client["createToken"]>[0]["right"]>();
  const isKnown = (right: AccessToken["right"]): boolean => {
    switch (right) {
      case "read":
      case "write":
      case "admin":
        return true;
      default:
        expectTypeOf(right).toExtend<string>();
        return false;
    }
  };
  expectTypeOf(isKnown).returns.toBeBoolean();
});

void test("the noun of a change tells its value", () => {
  const valueOf = (change: ItemChange): unknown => {
    switch (change.noun) {
      case "message":
        expectTypeOf(change.value).toEqualTypeOf<Message | undefined>();
        return change.value?.content;
      case "media":
        expectTypeOf(change.value).toEqualTypeOf<Media | undefined>();
        return change.value?.mime;
      case "current-user":
        expectTypeOf(change.value).toEqualTypeOf<undefined>();
        return change.id;
      case "room":
      case "member":
      case "user":
      case "ban":
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
  expectTypeOf<{ type: "get-user"; payload: { userId: string } }>().not.toExtend<BatchedCommand>();
});

void test("watch and changes give what they follow", () => {
  const watched = (client: Client) => client.watch("get-messages", { roomId: "r1" });
  expectTypeOf(watched).returns.toEqualTypeOf<FeedIterator<Watched<Message[]>>>();
  const followed = (client: Client) => client.changes({ nouns: ["message"] });
  expectTypeOf(followed).returns.toEqualTypeOf<Changes>();
  expectTypeOf<"ping">().not.toExtend<Parameters<Client["watch"]>[0]>();
});

void test("a console is a logger", () => {
  expectTypeOf(console).toExtend<Logger>();
});

void test("an error tells its fault, code and details", () => {
  expectTypeOf<ConflictError>().toExtend<CallerError>();
  expectTypeOf<StorageError>().toExtend<DaemonError>();
  expectTypeOf<NoReplyError>().toExtend<BackscrollError>();
  expectTypeOf<NoReplyError>().not.toExtend<CallerError>();
  expectTypeOf<FeedGapError>().not.toExtend<BackscrollError>();
  expectTypeOf<FeedGapError["cursor"]>().toBeString();
  expectTypeOf<CallerError["fault"]>().toEqualTypeOf<"caller">();
  expectTypeOf<DaemonError["fault"]>().toEqualTypeOf<"daemon">();
  expectTypeOf<BackscrollError["code"]>().toBeString(); // it may be one of a later level
  expectTypeOf<BackscrollError["failures"]>().toEqualTypeOf<FailedCommand[]>();
  expectTypeOf<BackscrollError["details"]>().toEqualTypeOf<Readonly<Record<string, unknown>> | undefined>();
});
