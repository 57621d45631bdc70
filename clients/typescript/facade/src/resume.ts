/** Where the application goes on when it starts: small settings of the user interface, kept outside the database. */

/** What is used of `localStorage`. */
export interface KeyValueStorage {
  /** The text under a key, or null. */
  getItem(key: string): string | null;
  /** Store text under a key. */
  setItem(key: string, value: string): void;
  /** Store nothing under a key. */
  removeItem(key: string): void;
}

/** What happens when the application starts. */
export interface LaunchSettings {
  /** Whether the chat that was viewed last is shown; true if it was never set. */
  resumeLastChat: boolean;
}

/** The chat that was viewed last, and the place in it. */
export interface LastChat {
  roomId: string;
  channelId?: string;
  /** The message at the place, for `getMessagePage({ around })`. */
  messageId?: string;
  /** A cursor of a page at the place, for `getMessagePage({ before })` or `{ after }`. */
  cursor?: string;
}

/** What one user left behind. A storage that is missing, full or forbidden forgets; nothing here throws. */
export interface AppResume {
  readonly launchSettings: LaunchSettings;
  readonly lastChat: LastChat | undefined;
  /** The chat to show at the start: the last one, if the settings say so. */
  readonly chatToResume: LastChat | undefined;
  /** Change some settings; returns whether they were stored. */
  setLaunchSettings(settings: Partial<LaunchSettings>): boolean;
  /** Remember a chat, or with `undefined` none; returns whether that was stored. */
  setLastChat(chat: LastChat | undefined): boolean;
  /** Forget everything of this user; returns whether that was stored. */
  clear(): boolean;
}

/** What the user left behind, in `localStorage` unless another storage is given; each user has keys of their own. */
export function appResume(userId: string, storage: KeyValueStorage | undefined = localStorageIfAny()): AppResume {
  const settingsKey = `backscroll/launch-settings/${userId}`;
  const chatKey = `backscroll/last-chat/${userId}`;
  return {
    get launchSettings() {
      return { resumeLastChat: readObject(storage, settingsKey)["resumeLastChat"] !== false };
    },
    get lastChat() {
      return asLastChat(readObject(storage, chatKey));
    },
    get chatToResume() {
      return this.launchSettings.resumeLastChat ? this.lastChat : undefined;
    },
    setLaunchSettings(settings) {
      return write(storage, settingsKey, { ...this.launchSettings, ...settings });
    },
    setLastChat(chat) {
      return write(storage, chatKey, chat);
    },
    clear() {
      return [settingsKey, chatKey].map((key) => write(storage, key, undefined)).every(Boolean);
    },
  };
}

/** Reading the property throws where the page may not store anything. */
function localStorageIfAny(): KeyValueStorage | undefined {
  try {
    return (globalThis as { localStorage?: KeyValueStorage }).localStorage;
  } catch {
    return undefined;
  }
}

/** The object that is stored under a key; an empty one if there is none, or something else. */
function readObject(storage: KeyValueStorage | undefined, key: string): Record<string, unknown> {
  try {
    const stored: unknown = JSON.parse(storage?.getItem(key) ?? "null");
    return typeof stored === "object" && stored !== null ? { ...stored } : {};
  } catch {
    return {};
  }
}

function write(storage: KeyValueStorage | undefined, key: string, value: object | undefined): boolean {
  try {
    if (value === undefined) storage?.removeItem(key);
    else storage?.setItem(key, JSON.stringify(value));
    return storage !== undefined;
  } catch {
    return false;
  }
}

function asLastChat({ roomId, channelId, messageId, cursor }: Record<string, unknown>): LastChat | undefined {
  if (!isName(roomId)) return undefined;
  return {
    roomId,
    ...(isName(channelId) && { channelId }),
    ...(isName(messageId) && { messageId }),
    ...(isName(cursor) && { cursor }),
  };
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
