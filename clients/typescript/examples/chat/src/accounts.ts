/** The accounts of the example, which has no sign-in: each has its own rooms and messages on this device. */

export interface Account {
  id: string;
  name: string;
}

export const ACCOUNTS: readonly Account[] = [
  { id: "ada", name: "Ada Lindqvist" },
  { id: "bo", name: "Bo Okafor" },
  { id: "cleo", name: "Cleo Marin" },
];

/** The account that the address of the page names, if any: a window stays with its account when it is reloaded. */
export function accountOfAddress(): Account | undefined {
  const id = new URL(location.href).searchParams.get("account");
  return ACCOUNTS.find((account) => account.id === id);
}

export function showAccountInAddress(account: Account): void {
  const url = new URL(location.href);
  url.searchParams.set("account", account.id);
  history.replaceState(null, "", url);
}
