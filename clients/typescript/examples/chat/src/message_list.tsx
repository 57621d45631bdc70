/**
 * The messages of a room as a long list: only the rows in view are in the document, and pages are read before the view
 * comes to the end of those in memory. The virtualizer keeps the place when messages come in above it.
 */

import type { Virtualizer } from "@tanstack/virtual-core";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Account } from "./accounts.js";
import { type MessageActions, MessageRow } from "./message_row.js";
import { Icon } from "./parts.js";
import { type AnyMessage, beginningOf, estimatedHeight, nameOf, type Row, timeOf } from "./rows.js";
import type { Timeline, TimelineState } from "./timeline.js";
import { useVirtualizer } from "./use_virtualizer.js";

/** Another page is read when fewer rows than this are left beyond the view. */
const ROWS_AHEAD = 40;
/** How far from the end the newest message counts as seen. Pixels. */
const END_PX = 60;
const REMEMBER_MS = 250;
/** The view is at rest when it stays for so many frames; it is taken to be after at most so many. */
const FRAMES_AT_REST = 3;
const FRAMES_MAX = 60;

interface Props {
  timeline: Timeline;
  state: TimelineState;
  rows: readonly Row[];
  account: Account;
  editing: { id: string; text: string } | undefined;
  actions: MessageActions;
  /** Called with the message at the top of the view, undefined at the end, when the view has come to rest. */
  remember: (messageId: string | undefined) => void;
  /** A message to come to; a new object each time. */
  target: { id: string } | undefined;
  /** Changes when the end is to be shown. */
  toEnd: number;
}

export function MessageList(props: Props) {
  const { timeline, state, rows, account, editing, actions, remember, target, toEnd } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const wasLive = useRef(false);
  const [active, setActive] = useState<string>();
  const [pointed, setPointed] = useState<string>();
  const indexes = useMemo(() => new Map(rows.map(({ message }, index) => [message.id, index])), [rows]);
  const messages = useMemo(() => new Map(rows.map(({ message }) => [message.id, message])), [rows]);
  const activeIndex = (active === undefined ? undefined : indexes.get(active)) ?? rows.length - 1;

  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    getItemKey: (index) => rows[index]?.message.id ?? index,
    estimateSize: (index) => estimatedHeight(rowAt(rows, index)),
    overscan: 8,
    paddingStart: 16,
    paddingEnd: 16,
    anchorTo: "end",
    // A page that was read because the view comes near it does not move the view.
    followOnAppend: wasLive.current,
    scrollEndThreshold: END_PX,
    // The message with the focus stays in the document, wherever the view is.
    rangeExtractor: ({ startIndex, endIndex, overscan, count }) => {
      const [first, end] = [Math.max(0, startIndex - overscan), Math.min(count, endIndex + overscan + 1)];
      const shown = Array.from({ length: end - first }, (_, index) => first + index);
      if (active === undefined || (activeIndex >= first && activeIndex < end)) return shown;
      return activeIndex < first ? [activeIndex, ...shown] : [...shown, activeIndex];
    },
  });
  useEffect(() => {
    wasLive.current = state.isOpen && !state.hasNewer;
  });
  useEffect(() => {
    forgetHeights(virtualizer.itemSizeCache, indexes);
  }, [indexes]);

  // The place to begin at, and later the places to come to. Pages are read again when the view has arrived there: they
  // would change the indexes of the rows on the way.
  const [isArriving, setArriving] = useState(true);
  const show = (id: string | undefined, align: "start" | "center"): void => {
    const index = id === undefined ? undefined : indexes.get(id);
    setArriving(true);
    if (index === undefined) virtualizer.scrollToEnd();
    else virtualizer.scrollToIndex(index, { align });
    whenAtRest(virtualizer, () => {
      virtualizer.cancelScroll();
      setArriving(false);
    });
  };
  useLayoutEffect(() => {
    if (state.isOpen) show(timeline.place, "start");
  }, [state.isOpen]);
  useLayoutEffect(() => {
    if (toEnd > 0) show(undefined, "start");
  }, [toEnd]);
  useLayoutEffect(() => {
    if (target === undefined || !indexes.has(target.id)) return;
    show(target.id, "center");
    setActive(target.id);
  }, [target]);

  const isAtEnd = state.isOpen && !state.hasNewer && (rows.length === 0 || virtualizer.isAtEnd(END_PX));
  const first = virtualizer.range?.startIndex ?? 0;
  const last = virtualizer.range?.endIndex ?? 0;
  const place = isAtEnd ? undefined : rows[first]?.message.id;
  useEffect(() => {
    if (isArriving || virtualizer.range === null) return undefined;
    timeline.place = place;
    if (isAtEnd) timeline.seen();
    if (first < ROWS_AHEAD) timeline.loadOlder();
    if (rows.length - last < ROWS_AHEAD) timeline.loadNewer();
    const timer = setTimeout(() => {
      remember(place);
    }, REMEMBER_MS);
    return () => {
      clearTimeout(timer);
    };
  }, [isArriving, state, first, last, isAtEnd, place]);

  const focus = (index: number): void => {
    const row = rows[index];
    if (row === undefined) return;
    setActive(row.message.id);
    virtualizer.scrollToIndex(index, { align: "auto" });
    const focusRow = (): boolean => {
      const article = scroller.current?.querySelector<HTMLElement>(`[data-index="${String(index)}"]`);
      article?.focus({ preventScroll: true });
      return article != null;
    };
    if (!focusRow()) requestAnimationFrame(focusRow); // it has to be rendered first
  };
  const move = (event: KeyboardEvent): void => {
    if (!(event.target instanceof HTMLElement) || event.target instanceof HTMLTextAreaElement) return;
    const article = event.target.closest("article");
    if (event.key === "Escape") article?.focus();
    else if (event.key === "ArrowUp") focus(activeIndex - 1);
    else if (event.key === "ArrowDown") focus(activeIndex + 1);
    else if (event.key === "End") actions.showNewest();
    else return;
    event.preventDefault();
  };

  return (
    <div class="list">
      <div
        class="scroller"
        ref={scroller}
        {...(rows.length > 0 && { role: "feed", "aria-label": "Messages" })}
        onKeyDown={move}
      >
        <div class="rows" role="presentation" style={{ height: `${String(virtualizer.getTotalSize())}px` }}>
          {virtualizer.getVirtualItems().map(({ key, index, start }) => {
            const row = rowAt(rows, index);
            const { message } = row;
            return (
              <article
                key={key}
                ref={virtualizer.measureElement}
                data-index={index}
                data-id={message.id}
                style={{ transform: `translateY(${String(start)}px)` }}
                tabIndex={index === activeIndex ? 0 : -1}
                aria-label={`${nameOf(message)}, ${timeOf(message)}: ${beginningOf(message)}`}
                aria-posinset={index + 1}
                aria-setsize={-1}
                onPointerEnter={() => {
                  setPointed(message.id);
                }}
                onFocusIn={() => {
                  setActive(message.id);
                }}
              >
                <MessageRow
                  row={row}
                  account={account}
                  answered={message.replyToId == null ? undefined : messages.get(message.replyToId)}
                  draft={editing?.id === message.id ? editing.text : undefined}
                  isActive={index === activeIndex}
                  hasTools={index === activeIndex || message.id === pointed}
                  actions={actions}
                />
              </article>
            );
          })}
        </div>
      </div>
      {state.isOpen && rows.length === 0 && <p class="nothing">No messages yet. Write the first one.</p>}
      {state.isOpen && !isAtEnd && (
        <button
          class="newest"
          onClick={() => {
            actions.showNewest();
          }}
        >
          {state.unseen > 0 ? newMessages(state.unseen) : "Newest"} <Icon name="down" />
        </button>
      )}
      <Announcer rows={rows} account={account} isLive={state.isOpen && !state.hasNewer} />
    </div>
  );
}

const newMessages = (count: number): string =>
  count === 1 ? "1 new message" : `${count > 99 ? "99+" : String(count)} new messages`;

function rowAt(rows: readonly Row[], index: number): Row {
  const row = rows[index];
  if (row === undefined) throw new RangeError(`there is no row ${String(index)}`);
  return row;
}

/** Call a function when the rows in view have been measured, and the view stays where it is. */
function whenAtRest(virtualizer: Virtualizer<HTMLElement, HTMLElement>, act: () => void): void {
  let framesLeft = FRAMES_MAX;
  let framesAtRest = 0;
  let before: number | null = null;
  const look = (): void => {
    const { scrollOffset } = virtualizer;
    framesAtRest = scrollOffset === before ? framesAtRest + 1 : 0;
    before = scrollOffset;
    framesLeft -= 1;
    if (framesAtRest >= FRAMES_AT_REST || framesLeft === 0) act();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}

/** Forget the heights of rows that left the memory long ago. */
function forgetHeights(heights: Map<string | number | bigint, number>, indexes: ReadonlyMap<string, number>): void {
  if (heights.size < 10 * indexes.size + 1_000) return;
  for (const key of heights.keys()) if (typeof key !== "string" || !indexes.has(key)) heights.delete(key);
}

/** Tells screen readers of new messages of others. The list itself cannot: rows come into it by scrolling, too. */
function Announcer({ rows, account, isLive }: { rows: readonly Row[]; account: Account; isLive: boolean }) {
  const [text, setText] = useState("");
  const latest = useRef<AnyMessage | undefined>(undefined);
  const last = rows.at(-1)?.message;
  useEffect(() => {
    const before = latest.current;
    latest.current = isLive ? last : undefined;
    if (last === undefined || before === undefined || last.timestamp <= before.timestamp) return;
    if (last.senderId !== account.id) setText(`${nameOf(last)}: ${last.content}`);
  }, [last?.id, isLive]);
  return (
    <p class="hidden" role="log" aria-live="polite">
      {text}
    </p>
  );
}
