/** The dialogs: another account, a new room, sample messages. */

import { useEffect, useRef, useState } from "preact/hooks";
import { ScopeSwitchedError, type DatabaseService } from "@backscroll/facade";
import type { Account } from "./accounts.js";
import { fill } from "./fill.js";
import type { Outbox } from "./outbox.js";
import { AccountList, Dialog } from "./parts.js";
import { messageOf } from "./retry.js";
import { useReadable } from "./use_readable.js";

interface AccountDialogProps {
  account: Account;
  outbox: Outbox;
  switchTo: (account: Account) => void;
  close: () => void;
}

export function AccountDialog({ account, outbox, switchTo, close }: AccountDialogProps) {
  const [chosen, setChosen] = useState<Account>();
  const isCancelled = useRef(false);
  const { steps } = useReadable(outbox);

  // What was written here is saved in this account before another one is opened.
  const choose = (other: Account): void => {
    if (other === account) {
      close();
      return;
    }
    setChosen(other);
    void outbox.finished().then(() => {
      if (!isCancelled.current) switchTo(other);
    });
  };
  return (
    <Dialog
      title="Switch account"
      close={() => {
        isCancelled.current = true;
        close();
      }}
    >
      <AccountList current={account} choose={choose} />
      {chosen !== undefined && steps > 0 && <p role="status">Saving what you wrote as {account.name} first…</p>}
      <form method="dialog" class="buttons">
        <button>Cancel</button>
      </form>
    </Dialog>
  );
}

interface RoomDialogProps {
  db: DatabaseService;
  outbox: Outbox;
  created: (roomId: string) => void;
  close: () => void;
}

export function RoomDialog({ db, outbox, created, close }: RoomDialogProps) {
  const [name, setName] = useState("");
  const create = (): void => {
    const room = { id: crypto.randomUUID(), name: name.trim(), createdAt: Date.now() };
    outbox.run("The room was not created", () => db.saveRoom(room));
    created(room.id);
    close();
  };
  return (
    <Dialog title="New room" close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          create();
        }}
      >
        <label>
          Name
          <input
            value={name}
            onInput={(event) => {
              setName(event.currentTarget.value);
            }}
            required
            pattern=".*\S.*"
            maxLength={80}
            autocomplete="off"
          />
        </label>
        <div class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button class="primary">Create</button>
        </div>
      </form>
    </Dialog>
  );
}

interface FillDialogProps {
  db: DatabaseService;
  account: Account;
  filled: (roomId: string) => void;
  close: () => void;
}

/** For developers: a room with a long made-up conversation. */
export function FillDialog({ db, account, filled, close }: FillDialogProps) {
  const [count, setCount] = useState(100_000);
  const [saved, setSaved] = useState<number>();
  const [problem, setProblem] = useState<string>();
  const stopping = useRef(new AbortController());
  useEffect(
    () => () => {
      stopping.current.abort();
    },
    [],
  );

  const start = async (): Promise<void> => {
    setProblem(undefined);
    setSaved(0);
    try {
      filled(await fill(db, account, count, setSaved, stopping.current.signal));
      close();
    } catch (error) {
      if (!stopping.current.signal.aborted && !(error instanceof ScopeSwitchedError)) setProblem(messageOf(error));
      setSaved(undefined);
    }
  };
  return (
    <Dialog title="Fill with sample messages" close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void start();
        }}
      >
        <label>
          Messages
          <input
            type="number"
            min={1}
            max={1_000_000}
            value={count}
            disabled={saved !== undefined}
            onInput={(event) => {
              setCount(event.currentTarget.valueAsNumber);
            }}
          />
        </label>
        {saved !== undefined && (
          <label>
            {saved.toLocaleString("en")} saved
            <progress value={saved} max={count} />
          </label>
        )}
        {problem !== undefined && <p role="alert">{problem}</p>}
        <div class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button class="primary" disabled={saved !== undefined}>
            Fill
          </button>
        </div>
      </form>
    </Dialog>
  );
}
