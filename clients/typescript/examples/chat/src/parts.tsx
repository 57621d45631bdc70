/** Small parts that several components use. */

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { type Account, ACCOUNTS } from "./accounts.js";

/** The initials of a person, in a colour of their own. */
export function Avatar({ id, name }: { id: string; name: string }) {
  const initials = name
    .split(" ")
    .map((word) => word.charAt(0))
    .slice(0, 2)
    .join("");
  return (
    <span class="avatar" style={`--hue: ${String(hueOf(id))}`} aria-hidden="true">
      {initials}
    </span>
  );
}

function hueOf(id: string): number {
  let sum = 0;
  for (const char of id) sum = (31 * sum + (char.codePointAt(0) ?? 0)) % 997;
  return (7 * sum) % 360;
}

const ICONS = {
  menu: "M3 5h14M3 10h14M3 15h14",
  plus: "M10 4v12M4 10h12",
  reply: "M8 5 3 10l5 5M3 10h8a6 6 0 0 1 6 6",
  edit: "m4 16 1-4 8-8 3 3-8 8zM11 6l3 3",
  trash: "M4 6h12M8 6V4h4v2M6 6l1 10h6l1-10",
  down: "M10 4v12M5 11l5 5 5-5",
  close: "m5 5 10 10M15 5 5 15",
  send: "M3 10 17 3l-4 14-3-6z",
} as const;

export function Icon({ name }: { name: keyof typeof ICONS }) {
  return (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  );
}

interface DialogProps {
  title: string;
  close: () => void;
  children: ComponentChildren;
}

/** A modal dialog while it is rendered. The browser keeps the focus in it, and gives it back afterwards. */
export function Dialog({ title, close, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const dialog = element.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog ref={element} aria-label={title} onClose={close}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

/** Why nothing can be done in this window any more, and what to do. */
export function Ended({ why }: { why: string }) {
  return (
    <p class="ended" role="alert">
      {why.charAt(0).toUpperCase() + why.slice(1)}
    </p>
  );
}

/** The accounts as buttons. */
export function AccountList({
  current,
  choose,
}: {
  current?: Account | undefined;
  choose: (account: Account) => void;
}) {
  return (
    <ul class="accounts">
      {ACCOUNTS.map((account) => (
        <li key={account.id}>
          <button
            aria-current={account === current ? "true" : undefined}
            onClick={() => {
              choose(account);
            }}
          >
            <Avatar id={account.id} name={account.name} />
            {account.name}
          </button>
        </li>
      ))}
    </ul>
  );
}
