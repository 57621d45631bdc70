/** Which account is open: the choice of one, waiting for it, and its chat. */

import { useEffect, useState } from "preact/hooks";
import { type DatabaseService, ScopeSwitchedError, type Store } from "@backscroll/facade";
import { type Account, accountOfAddress, showAccountInAddress } from "./accounts.js";
import { Chat } from "./chat.js";
import { AccountList, Ended } from "./parts.js";
import { messageOf } from "./retry.js";
import { useReadable } from "./use_readable.js";

interface Props {
  db: DatabaseService;
  store: Store;
  /** Why nothing can be done any more, if the application was closed. */
  ended: string | undefined;
}

export function App(props: Props) {
  return (
    <>
      {props.ended !== undefined && <Ended why={props.ended} />}
      <AccountView {...props} />
    </>
  );
}

function AccountView({ db, store, ended }: Props) {
  const [account, setAccount] = useState(accountOfAddress);
  const [problem, setProblem] = useState<string>();
  const isReady = useReadable(db.isReady);

  const open = (chosen: Account): void => {
    setAccount(chosen);
    setProblem(undefined);
    showAccountInAddress(chosen);
    db.switchScope(chosen.id).catch((error: unknown) => {
      if (!(error instanceof ScopeSwitchedError)) setProblem(messageOf(error));
    });
  };
  useEffect(() => {
    if (account !== undefined) open(account);
  }, []);

  if (account === undefined) return <SignIn choose={open} />;
  if (isReady) {
    const hasEnded = ended !== undefined;
    return <Chat key={account.id} db={db} store={store} hasEnded={hasEnded} account={account} switchTo={open} />;
  }
  return (
    <main class="front">
      <h1>{account.name}</h1>
      {problem === undefined ? (
        <p role="status">Opening…</p>
      ) : (
        <>
          <p role="alert">Your messages cannot be opened: {problem}</p>
          <button
            class="primary"
            onClick={() => {
              open(account);
            }}
          >
            Try again
          </button>
        </>
      )}
    </main>
  );
}

function SignIn({ choose }: { choose: (account: Account) => void }) {
  return (
    <main class="front">
      <h1>Who are you?</h1>
      <p>Each account has its own rooms and messages on this device.</p>
      <AccountList choose={choose} />
    </main>
  );
}
