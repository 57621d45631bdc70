/** A room: its messages, and what is written to it. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { DatabaseService, Room, Store } from "@backscroll/facade";
import type { Account } from "./accounts.js";
import { MessageList } from "./message_list.js";
import type { MessageActions } from "./message_row.js";
import type { Outbox } from "./outbox.js";
import { Dialog, Icon } from "./parts.js";
import { type AnyMessage, nameOf, rowsOf } from "./rows.js";
import { Timeline } from "./timeline.js";
import { useReadable } from "./use_readable.js";

interface Props {
  db: DatabaseService;
  store: Store;
  hasEnded: boolean;
  outbox: Outbox;
  account: Account;
  room: Room;
  /** The message to begin at; the newest without it. */
  place: string | undefined;
  remember: (messageId: string | undefined) => void;
  openRooms: () => void;
}

export function RoomView({ db, store, hasEnded, outbox, account, room, place, remember, openRooms }: Props) {
  const timeline = useMemo(() => new Timeline(db, store, room.id, place), []);
  useEffect(
    () => () => {
      timeline.close();
    },
    [],
  );
  const state = useReadable(timeline);
  const { messages: outgoing, problem } = useReadable(outbox);
  const connection = useReadable(db.connection);
  const [editing, setEditing] = useState<{ id: string; text: string; isFromComposer: boolean }>();
  const [deleting, setDeleting] = useState<AnyMessage>();
  const [answering, setAnswering] = useState<AnyMessage>();
  const [target, setTarget] = useState<{ id: string }>();
  const [toEnd, setToEnd] = useState(0);
  const rows = useMemo(() => {
    // Also in a room that cannot be read yet because the daemon is away.
    const here = state.hasNewer ? [] : outgoing.filter(({ message }) => message.roomId === room.id);
    // The first of many is not shown, so that no row changes its height when what comes before it is read.
    return state.hasOlder
      ? rowsOf(state.messages[0], state.messages.slice(1), here)
      : rowsOf(undefined, state.messages, here);
  }, [state, outgoing]);

  const showNewest = async (): Promise<void> => {
    await timeline.jumpToNewest();
    setToEnd((count) => count + 1);
  };
  const send = (content: string): boolean => {
    const replyToId = answering?.id;
    const text = { roomId: room.id, senderId: account.id, senderName: account.name, content };
    const message = { ...text, ...(replyToId !== undefined && { replyToId }) };
    if (!outbox.send(message, () => timeline.pull())) return false;
    setAnswering(undefined);
    void showNewest();
    return true;
  };
  const stopEditing = (): void => {
    setEditing(undefined);
  };
  useFocusBack(editing && (editing.isFromComposer ? COMPOSER : selectorOf(editing.id)));
  useFocusBack(deleting && selectorOf(deleting.id));
  // The rows get the same object all the time, so that they are not rendered again for it.
  const latest = useRef<MessageActions | undefined>(undefined);
  latest.current = {
    toggleReaction: (message, emoji) => {
      const isOwn = message.reactions?.some((each) => each.emoji === emoji && each.oderId === account.id);
      const reaction = { messageId: message.id, oderId: account.id, emoji, timestamp: Date.now() };
      outbox.run("The reaction was not saved", () =>
        isOwn === true ? db.removeReaction(message.id, account.id, emoji) : db.saveReaction(reaction),
      );
    },
    reply: setAnswering,
    edit: ({ id, content }) => {
      setEditing({ id, text: content, isFromComposer: false });
    },
    changeDraft: (text) => {
      setEditing((before) => before && { ...before, text });
    },
    saveDraft: () => {
      const content = editing?.text.trim();
      if (editing === undefined || content === undefined || content === "") return;
      const updates = { content, editedAt: Date.now() };
      outbox.run("The edit was not saved", () => db.updateMessage(editing.id, updates));
      stopEditing();
    },
    cancelEdit: stopEditing,
    remove: setDeleting,
    discard: ({ id }) => {
      outbox.discard(id);
    },
    jumpTo: (id) => {
      void timeline.jumpTo(id).then(() => {
        setTarget({ id });
      });
    },
    showNewest: () => {
      void showNewest();
    },
  };
  const actions = useMemo(() => forwarded(latest), []);
  const editLatestOwn = (): void => {
    const own = state.messages.findLast(({ senderId, isDeleted }) => senderId === account.id && !isDeleted);
    if (own !== undefined) setEditing({ id: own.id, text: own.content, isFromComposer: true });
  };

  return (
    <section class="room" aria-label={room.name}>
      <header>
        <button class="tool narrow" onClick={openRooms} aria-label="Rooms">
          <Icon name="menu" />
        </button>
        <h2>
          <span aria-hidden="true">#</span> {room.name}
        </h2>
        <p class="connection" role="status">
          {connection === "disconnected" && !hasEnded && "Reconnecting…"}
        </p>
      </header>
      <MessageList
        timeline={timeline}
        state={state}
        rows={rows}
        account={account}
        editing={editing}
        actions={actions}
        remember={remember}
        target={target}
        toEnd={toEnd}
      />
      {problem !== undefined && (
        <p class="problem" role="alert">
          {problem}{" "}
          <button
            onClick={() => {
              outbox.dismissProblem();
            }}
          >
            Close
          </button>
        </p>
      )}
      <Composer
        room={room}
        answering={answering}
        send={send}
        stopAnswering={() => {
          setAnswering(undefined);
        }}
        editLatestOwn={editLatestOwn}
      />
      {deleting !== undefined && (
        <DeleteDialog
          message={deleting}
          confirm={() => {
            const { id } = deleting;
            outbox.run("The message was not deleted", () => db.deleteMessage(id));
          }}
          close={() => {
            setDeleting(undefined);
          }}
        />
      )}
    </section>
  );
}

const COMPOSER = ".composer textarea";
const selectorOf = (id: string): string => `article[data-id="${CSS.escape(id)}"]`;

/** When a message is no longer edited, or asked about, the focus goes back to where that was begun. */
function useFocusBack(selector: string | undefined): void {
  useLayoutEffect(() => {
    if (selector === undefined) return undefined;
    return () => document.querySelector<HTMLElement>(selector)?.focus();
  }, [selector]);
}

/** Actions that stay the same object and call the latest functions. */
function forwarded(latest: { current: MessageActions | undefined }): MessageActions {
  return {
    toggleReaction: (message, emoji) => latest.current?.toggleReaction(message, emoji),
    reply: (message) => latest.current?.reply(message),
    edit: (message) => latest.current?.edit(message),
    changeDraft: (text) => latest.current?.changeDraft(text),
    saveDraft: () => latest.current?.saveDraft(),
    cancelEdit: () => latest.current?.cancelEdit(),
    remove: (message) => latest.current?.remove(message),
    discard: (message) => latest.current?.discard(message),
    jumpTo: (id) => latest.current?.jumpTo(id),
    showNewest: () => latest.current?.showNewest(),
  };
}

interface ComposerProps {
  room: Room;
  answering: AnyMessage | undefined;
  send: (content: string) => boolean;
  stopAnswering: () => void;
  editLatestOwn: () => void;
}

function Composer({ room, answering, send, stopAnswering, editLatestOwn }: ComposerProps) {
  const [text, setText] = useState("");
  const element = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    element.current?.focus();
  }, [answering]);
  const submit = (): void => {
    if (text.trim() === "" || !send(text.trim())) return;
    setText("");
    element.current?.focus();
  };
  const press = (event: KeyboardEvent): void => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) submit();
    else if (event.key === "Escape") stopAnswering();
    else if (event.key === "ArrowUp" && text === "") editLatestOwn();
    else return;
    event.preventDefault();
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      {answering !== undefined && (
        <p class="answering">
          <span>
            Reply to <b>{nameOf(answering)}</b>: {answering.content}
          </span>
          <button type="button" class="tool" aria-label="Do not reply" onClick={stopAnswering}>
            <Icon name="close" />
          </button>
        </p>
      )}
      <textarea
        ref={element}
        aria-label={`Message to ${room.name}`}
        placeholder={`Message to ${room.name}`}
        rows={1}
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
        }}
        onKeyDown={press}
      />
      <button class="primary" aria-label="Send">
        <Icon name="send" />
      </button>
    </form>
  );
}

interface DeleteDialogProps {
  message: AnyMessage;
  confirm: () => void;
  close: () => void;
}

function DeleteDialog({ message, confirm, close }: DeleteDialogProps) {
  return (
    <Dialog title="Delete this message?" close={close}>
      <blockquote>{message.content}</blockquote>
      <form method="dialog" class="buttons">
        <button>Cancel</button>
        <button class="danger" onClick={confirm}>
          Delete
        </button>
      </form>
    </Dialog>
  );
}
