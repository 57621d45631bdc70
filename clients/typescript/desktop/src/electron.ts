/**
 * For Electron's main process: one channel, on which admitted windows get answers and events.
 *
 * Each page has an id, which its preload makes up and says with every message, first of all with `hello` when it is
 * loaded. So a page that was loaded anew has a session of its own, without an account, however the events of navigation
 * and the messages of the pages overtake one another; and a navigation that turns into a download ends nothing.
 *
 * The types here are the parts of Electron's that are used, so that this package needs no Electron.
 */

import { type BackscrollError, BusyError, ForbiddenError } from "backscroll";
import { invalidAt } from "backscroll/language";
import { BACKSCROLL } from "./bridge.js";
import { type Envelope, errorEnvelope } from "./envelope.js";
import type { Session, SessionOptions } from "./session.js";
import type { DesktopStore } from "./store.js";

/** The longest id of a page. */
const PAGE_CHARS_MAX = 100;
/** So many pages that a window showed before may have requests without an answer; until then a new one is refused. */
const LEFT_PAGES_MAX = 10;

/** Electron's `WebFrameMain`. */
export interface FrameLike {
  readonly origin: string;
}

/** Electron's `webContents` of a window. */
export interface WebContentsLike {
  readonly mainFrame: FrameLike;
  /** Whether the window is gone. */
  isDestroyed(): boolean;
  /** Sends a message to the main frame. */
  send(channel: string, ...values: unknown[]): void;
  /** Calls the listener with each event. */
  on(event: "destroyed" | "render-process-gone", listener: () => void): unknown;
  /** Ends `on`. */
  removeListener(event: "destroyed" | "render-process-gone", listener: () => void): unknown;
}

/** What comes with a message of a renderer. */
export interface InvokeEventLike {
  readonly sender: WebContentsLike;
  readonly senderFrame: FrameLike | null;
}

/** Electron's `ipcMain`. */
export interface IpcMainLike {
  /** Answers the messages on a channel. */
  handle(channel: string, listener: (event: InvokeEventLike, ...values: unknown[]) => unknown): void;
  /** Ends `handle`. */
  removeHandler(channel: string): void;
}

/** How a store is exposed. */
export interface ExposeOptions {
  /** The channel: `backscroll` if left out. */
  channel?: string | undefined;
}

/** What a window may do. */
export interface AdmitOptions extends Omit<SessionOptions, "send"> {
  /**
   * The URL that the window loads, or its origin: while it shows a page of another origin, everything is refused. It can
   * be left out if a page is loaded already.
   */
  origin?: string | undefined;
}

/** A store on its channel; made by `exposeStore`. */
export interface ExposedStore {
  /**
   * Let the main frame of a window use the store, until the window is destroyed; if it was admitted before, what it may
   * do changes, and its page has no account open. Throws `InvalidError` if its origin is not known.
   */
  readonly admit: (webContents: WebContentsLike, options?: AdmitOptions) => void;
  /** End the sessions of all windows, and answer nothing more. The store stays open. */
  readonly close: () => void;
}

/** Answer the requests of windows, those that are admitted. */
export function exposeStore(
  ipcMain: IpcMainLike,
  store: DesktopStore,
  { channel = BACKSCROLL }: ExposeOptions = {},
): ExposedStore {
  const windows = new Map<WebContentsLike, AdmittedWindow>();
  ipcMain.handle(channel, (event, page, kind, request) => {
    const window = windows.get(event.sender);
    return window?.answer(event.senderFrame, page, kind, request) ?? refusal("this window is not admitted");
  });
  return {
    admit: (webContents, options = {}) => {
      windows.get(webContents)?.close();
      const window = new AdmittedWindow(channel, store, webContents, options, () => windows.delete(webContents));
      windows.set(webContents, window);
    },
    close: () => {
      ipcMain.removeHandler(channel);
      for (const window of windows.values()) window.close();
    },
  };
}

class AdmittedWindow {
  readonly #channel: string;
  readonly #store: DesktopStore;
  readonly #webContents: WebContentsLike;
  readonly #options: AdmitOptions;
  readonly #origin: string;
  readonly #forget: () => void;
  /** The page that the window shows, after it said `hello`. */
  #page: { id: string; session: Session } | undefined;
  /** The pages before it whose sessions have not ended. */
  #leftPages = 0;
  /** Called when the page took the event that is on its way. */
  #taken: (() => void) | undefined;

  constructor(
    channel: string,
    store: DesktopStore,
    webContents: WebContentsLike,
    options: AdmitOptions,
    forget: () => void,
  ) {
    this.#channel = channel;
    this.#store = store;
    this.#webContents = webContents;
    this.#options = { ...options, operations: options.operations && [...options.operations] }; // read for each page
    this.#origin = originOf(options.origin ?? webContents.mainFrame.origin);
    this.#forget = forget;
    void this.#newSession("").close(); // throws for operations that cannot be allowed
    webContents.on("destroyed", this.close);
    webContents.on("render-process-gone", this.#endPage);
  }

  answer(frame: FrameLike | null, page: unknown, kind: unknown, request: unknown): Promise<Envelope> | Envelope {
    if (!this.#isMainFrame(frame)) return refusal("only the main frame of a window may use the store");
    if (!this.#hasOrigin(frame)) {
      this.#endPage();
      return refusal(`only pages of ${this.#origin} may use the store in this window`);
    }
    if (typeof page !== "string" || page.length > PAGE_CHARS_MAX) {
      return errorEnvelope(invalidAt("$", "the message is none of the preload's of this package"));
    }
    if (this.#page?.id !== page) {
      this.#endPage();
      if (this.#leftPages > LEFT_PAGES_MAX) return busy();
      this.#page = { id: page, session: this.#newSession(page) };
    }
    switch (kind) {
      case "command":
      case "query":
        return this.#page.session.answer(kind, request);
      case "received":
        this.#taken?.();
        return { ok: true, result: null };
      case "hello":
        return { ok: true, result: null };
      default:
        return errorEnvelope(invalidAt("$", "expected a command or a query"));
    }
  }

  readonly close = (): void => {
    this.#endPage();
    this.#webContents.removeListener("destroyed", this.close);
    this.#webContents.removeListener("render-process-gone", this.#endPage);
    this.#forget();
  };

  readonly #endPage = (): void => {
    if (this.#page === undefined) return;
    this.#leftPages += 1;
    void this.#page.session.close().then(() => (this.#leftPages -= 1));
    this.#page = undefined;
    this.#taken?.(); // nobody will, and the session may wait for it
    this.#taken = undefined;
  };

  #newSession(page: string): Session {
    const { operations, mayUse } = this.#options;
    return this.#store.session({
      operations,
      mayUse,
      send: (event) =>
        new Promise((taken, lost) => {
          const webContents = this.#webContents;
          if (webContents.isDestroyed() || !this.#hasOrigin(webContents.mainFrame)) {
            lost(new Error("the window shows another page"));
            return;
          }
          this.#taken = taken;
          webContents.send(this.#channel, page, event);
        }),
    });
  }

  #isMainFrame(frame: FrameLike | null): frame is FrameLike {
    return frame !== null && frame === this.#webContents.mainFrame;
  }

  #hasOrigin(frame: FrameLike): boolean {
    try {
      return frame.origin === this.#origin;
    } catch {
      return false; // the frame is gone
    }
  }
}

function refusal(problem: string): Envelope {
  const error: BackscrollError = new ForbiddenError(problem, { code: "forbidden" });
  return errorEnvelope(error);
}

function busy(): Envelope {
  const problem = "too many pages that this window showed before have requests without an answer";
  return errorEnvelope(new BusyError(problem, { code: "busy", retryable: true }));
}

/** The origin of a URL as Electron writes it, also for schemes of an application's own. */
function originOf(url: string): string {
  if (!URL.canParse(url)) {
    throw invalidAt("origin", 'name the URL that the window loads: admit(webContents, { origin: "file://" })');
  }
  const { protocol, host } = new URL(url);
  return `${protocol}//${host}`;
}
