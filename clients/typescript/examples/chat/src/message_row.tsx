/** One message: who wrote it and when, its text, its reactions, and what can be done with it. */

import { memo } from "preact/compat";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { ReactionInput } from "@backscroll/facade";
import type { Account } from "./accounts.js";
import { Avatar, Icon } from "./parts.js";
import { type AnyMessage, dateOf, nameOf, type Row, timeOf } from "./rows.js";

const EMOJI = ["👍", "❤️", "😂", "🎉", "👀"];

/** What can be done with a message; the same object for all rows. */
export interface MessageActions {
  toggleReaction(message: AnyMessage, emoji: string): void;
  reply(message: AnyMessage): void;
  edit(message: AnyMessage): void;
  changeDraft(text: string): void;
  saveDraft(): void;
  cancelEdit(): void;
  remove(message: AnyMessage): void;
  discard(message: AnyMessage): void;
  jumpTo(messageId: string): void;
  showNewest(): void;
}

interface Props {
  row: Row;
  account: Account;
  /** The message that this one answers, if it is in memory. */
  answered: AnyMessage | undefined;
  /** The text while the message is edited. */
  draft: string | undefined;
  /** Whether the keyboard's way through the page leads to this message. */
  isActive: boolean;
  /** Whether it has its tools, which only the message under the pointer and the active one need. */
  hasTools: boolean;
  actions: MessageActions;
}

export const MessageRow = memo(function MessageRow(props: Props) {
  const { row, account, answered, draft, isActive, hasTools, actions } = props;
  const { message, startsDay, startsGroup, state, problem } = row;
  const tabIndex = isActive ? 0 : -1;
  const isStored = state === "stored" && message.isDeleted !== true;
  return (
    <>
      {startsDay && <p class="day">{dateOf(message)}</p>}
      <div class={startsGroup ? "message group" : "message"}>
        {startsGroup ? <Avatar id={message.senderId ?? ""} name={nameOf(message)} /> : <Time message={message} />}
        <div class="body">
          {startsGroup && (
            <p class="by">
              <span class="name">{nameOf(message)}</span> <Time message={message} />
            </p>
          )}
          {message.replyToId != null && (
            <Answered id={message.replyToId} message={answered} tabIndex={tabIndex} actions={actions} />
          )}
          {draft === undefined ? <Text message={message} /> : <Editor draft={draft} actions={actions} />}
          {state === "sending" && <p class="note">Sending…</p>}
          {state === "failed" && (
            <p class="note failed">
              Not sent: {problem}{" "}
              <button
                tabIndex={tabIndex}
                onClick={() => {
                  actions.discard(message);
                }}
              >
                Discard
              </button>
            </p>
          )}
          {isStored && <Reactions message={message} account={account} tabIndex={tabIndex} actions={actions} />}
        </div>
        {isStored && hasTools && draft === undefined && (
          <Tools message={message} isOwn={message.senderId === account.id} tabIndex={tabIndex} actions={actions} />
        )}
      </div>
    </>
  );
}, isSame);

/** Rows are made anew whenever any message changed. */
function isSame(before: Props, now: Props): boolean {
  return (
    before.row.message === now.row.message &&
    before.row.startsDay === now.row.startsDay &&
    before.row.startsGroup === now.row.startsGroup &&
    before.row.state === now.row.state &&
    before.row.problem === now.row.problem &&
    before.answered === now.answered &&
    before.draft === now.draft &&
    before.isActive === now.isActive &&
    before.hasTools === now.hasTools
  );
}

function Time({ message }: { message: AnyMessage }) {
  return (
    <time dateTime={new Date(message.timestamp).toISOString()} title={dateOf(message)}>
      {timeOf(message)}
    </time>
  );
}

function Text({ message }: { message: AnyMessage }) {
  if (message.isDeleted === true) return <p class="text deleted">Message deleted</p>;
  return (
    <p class="text">
      {message.content}
      {message.editedAt != null && <span class="edited"> (edited)</span>}
    </p>
  );
}

interface AnsweredProps {
  id: string;
  message: AnyMessage | undefined;
  tabIndex: number;
  actions: MessageActions;
}

function Answered({ id, message, tabIndex, actions }: AnsweredProps) {
  const text =
    message === undefined ? "an earlier message" : message.isDeleted === true ? "a deleted message" : message.content;
  return (
    <button
      class="answered"
      tabIndex={tabIndex}
      onClick={() => {
        actions.jumpTo(id);
      }}
    >
      <Icon name="reply" />
      {message !== undefined && <b>{nameOf(message)}</b>}
      <span>{text}</span>
    </button>
  );
}

interface PartProps {
  message: AnyMessage;
  tabIndex: number;
  actions: MessageActions;
}

function Reactions({ message, account, tabIndex, actions }: PartProps & { account: Account }) {
  const reactions = message.reactions ?? [];
  if (reactions.length === 0) return null;
  const byEmoji = Map.groupBy(reactions, ({ emoji }) => emoji);
  return (
    <p class="reactions">
      {[...byEmoji].map(([emoji, those]) => {
        const isOwn = those.some(({ oderId }) => oderId === account.id);
        const count = countOf(those);
        return (
          <button
            key={emoji}
            tabIndex={tabIndex}
            aria-pressed={isOwn}
            aria-label={`${emoji}, ${String(count)}${isOwn ? ", yours too" : ""}`}
            onClick={() => {
              actions.toggleReaction(message, emoji);
            }}
          >
            <span aria-hidden="true">{emoji}</span> {count}
          </button>
        );
      })}
    </p>
  );
}

/** A reaction without a name stands for several people. */
const countOf = (reactions: readonly ReactionInput[]): number =>
  reactions.reduce((sum, { count }) => sum + (count ?? 1), 0);

function Tools({ message, isOwn, tabIndex, actions }: PartProps & { isOwn: boolean }) {
  return (
    <div class="tools" role="group" aria-label="Actions">
      {EMOJI.map((emoji) => (
        <button
          key={emoji}
          tabIndex={tabIndex}
          aria-label={`React with ${emoji}`}
          onClick={() => {
            actions.toggleReaction(message, emoji);
          }}
        >
          {emoji}
        </button>
      ))}
      <button
        tabIndex={tabIndex}
        aria-label="Reply"
        title="Reply"
        onClick={() => {
          actions.reply(message);
        }}
      >
        <Icon name="reply" />
      </button>
      {isOwn && (
        <>
          <button
            tabIndex={tabIndex}
            aria-label="Edit"
            title="Edit"
            onClick={() => {
              actions.edit(message);
            }}
          >
            <Icon name="edit" />
          </button>
          <button
            tabIndex={tabIndex}
            aria-label="Delete"
            title="Delete"
            onClick={() => {
              actions.remove(message);
            }}
          >
            <Icon name="trash" />
          </button>
        </>
      )}
    </div>
  );
}

function Editor({ draft, actions }: { draft: string; actions: MessageActions }) {
  const element = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    element.current?.focus();
    element.current?.setSelectionRange(draft.length, draft.length);
  }, []);
  return (
    <div class="editor">
      <textarea
        ref={element}
        aria-label="Edit message"
        rows={1}
        value={draft}
        onInput={(event) => {
          actions.changeDraft(event.currentTarget.value);
        }}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Escape") actions.cancelEdit();
          else if (event.key === "Enter" && !event.shiftKey) actions.saveDraft();
          else return;
          event.preventDefault();
          event.stopPropagation();
        }}
      />
      <p class="note">
        <button
          onClick={() => {
            actions.saveDraft();
          }}
        >
          Save
        </button>{" "}
        with Enter, or{" "}
        <button
          onClick={() => {
            actions.cancelEdit();
          }}
        >
          cancel
        </button>{" "}
        with Escape
      </p>
    </div>
  );
}
