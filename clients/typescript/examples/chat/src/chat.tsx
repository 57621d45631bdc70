/** The chat of one account: its rooms, and the one that is shown. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { appResume, type DatabaseService, type LastChat, type Room, type Store } from "@backscroll/facade";
import type { Account } from "./accounts.js";
import { AccountDialog, FillDialog, RoomDialog } from "./dialogs.js";
import { Outbox } from "./outbox.js";
import { Avatar, Icon } from "./parts.js";
import { RoomView } from "./room_view.js";
import { useReadable } from "./use_readable.js";

interface Props {
  db: DatabaseService;
  store: Store;
  /** Whether the application was closed, which is said elsewhere. */
  hasEnded: boolean;
  account: Account;
  switchTo: (account: Account) => void;
}

type Open = "account" | "fill" | "room" | undefined;

export function Chat({ db, store, hasEnded, account, switchTo }: Props) {
  const rooms = useReadable(useMemo(() => db.watch("get-all-rooms", {}), [db]));
  const outbox = useMemo(() => new Outbox(db), [db]);
  const resume = useMemo(() => appResume(account.id), [account]);
  const [chat, setChat] = useState<LastChat | undefined>(resume.chatToResume);
  const [dialog, setDialog] = useState<Open>();
  const [areRoomsOpen, setRoomsOpen] = useState(chat === undefined);
  useWarningBeforeLeaving(outbox);

  const room = rooms?.find(({ id }) => id === chat?.roomId);
  // In a narrow window: without any rooms the invitation to create one is shown, too.
  const layout =
    rooms?.length === 0 ? "no-rooms" : areRoomsOpen || (rooms !== undefined && room === undefined) ? "rooms-open" : "";
  const show = (roomId: string): void => {
    setRoomsOpen(false);
    if (roomId === chat?.roomId) return;
    resume.setLastChat({ roomId });
    setChat({ roomId });
  };
  const close = (): void => {
    setDialog(undefined);
  };

  useEffect(() => {
    document.title = room === undefined ? "Chat" : `${room.name} – Chat`;
  }, [room]);

  return (
    <main class={`chat ${layout}`}>
      <h1 class="hidden">Chat</h1>
      <nav class="rooms" aria-label="Rooms">
        <header>
          <button
            class="account"
            onClick={() => {
              setDialog("account");
            }}
          >
            <Avatar id={account.id} name={account.name} />
            <span>{account.name}</span>
            <span class="hidden">switch account</span>
          </button>
          <button
            class="tool"
            onClick={() => {
              setDialog("room");
            }}
            aria-label="New room"
            title="New room"
          >
            <Icon name="plus" />
          </button>
        </header>
        <RoomList rooms={rooms ?? []} current={room} show={show} />
        <footer>
          <button
            class="quiet"
            onClick={() => {
              setDialog("fill");
            }}
          >
            Fill with sample messages…
          </button>
        </footer>
      </nav>
      {room === undefined || chat === undefined ? (
        <NoRoom
          areThereRooms={rooms === undefined || rooms.length > 0}
          create={() => {
            setDialog("room");
          }}
        />
      ) : (
        <RoomView
          key={room.id}
          db={db}
          store={store}
          hasEnded={hasEnded}
          outbox={outbox}
          account={account}
          room={room}
          place={chat.messageId}
          remember={(messageId) => {
            resume.setLastChat({ roomId: room.id, ...(messageId !== undefined && { messageId }) });
          }}
          openRooms={() => {
            setRoomsOpen(true);
          }}
        />
      )}
      {dialog === "account" && <AccountDialog account={account} outbox={outbox} switchTo={switchTo} close={close} />}
      {dialog === "room" && <RoomDialog db={db} outbox={outbox} created={show} close={close} />}
      {dialog === "fill" && <FillDialog db={db} account={account} filled={show} close={close} />}
    </main>
  );
}

interface RoomListProps {
  rooms: readonly Room[];
  current: Room | undefined;
  show: (roomId: string) => void;
}

/** The rooms; the arrow keys move between them. */
function RoomList({ rooms, current, show }: RoomListProps) {
  const move = (event: KeyboardEvent): void => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (step === 0 || !(event.currentTarget instanceof HTMLElement)) return;
    const buttons = [...event.currentTarget.querySelectorAll("button")];
    const next = buttons[buttons.findIndex((button) => button === document.activeElement) + step];
    next?.focus();
    event.preventDefault();
  };
  return (
    <ul onKeyDown={move}>
      {rooms.map((room) => (
        <li key={room.id}>
          <button
            aria-current={room === current ? "page" : undefined}
            onClick={() => {
              show(room.id);
            }}
          >
            <span aria-hidden="true">#</span> {room.name}
          </button>
        </li>
      ))}
    </ul>
  );
}

function NoRoom({ areThereRooms, create }: { areThereRooms: boolean; create: () => void }) {
  return (
    <section class="room empty" aria-label="Room">
      <h2>{areThereRooms ? "Choose a room" : "No rooms yet"}</h2>
      {!areThereRooms && (
        <>
          <p>Create a room to write your first message.</p>
          <button class="primary" onClick={create}>
            Create a room
          </button>
        </>
      )}
    </section>
  );
}

/** Let the browser ask before a window is closed in which something is not saved yet. */
function useWarningBeforeLeaving(outbox: Outbox): void {
  useEffect(() => {
    const ask = (event: BeforeUnloadEvent): void => {
      if (outbox.value.steps > 0) event.preventDefault();
    };
    addEventListener("beforeunload", ask);
    return () => {
      removeEventListener("beforeunload", ask);
    };
  }, [outbox]);
}
