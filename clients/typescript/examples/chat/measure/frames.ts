/** Frame times while a page scrolls, from Chromium's tracing. */

import type { Browser, Page } from "playwright-core";

const CATEGORIES = [
  "-*",
  "disabled-by-default-devtools.timeline",
  "disabled-by-default-devtools.timeline.frame",
  "__metadata",
];
const LONG_TASK_MS = 50;

interface TraceEvent {
  name: string;
  pid: number;
  tid: number;
  /** Microseconds, as are durations. */
  ts: number;
  dur?: number;
  /** The time on the processor: that of other processes is not in it. */
  tdur?: number;
  args?: { name?: string };
}

export interface Distribution {
  count: number;
  median: number;
  p95: number;
  p99: number;
  max: number;
}

export interface FrameTimes {
  /** From one drawn frame to the next. Milliseconds. */
  interval: Distribution;
  shareOver16_7: number;
  shareOver33: number;
  /** What the main thread computed for each frame. Milliseconds of processor time. */
  mainThread: Distribution;
  mainThreadShareOver16_7: number;
  /** Tasks of the main thread of more than 50 ms, by the clock and by processor time. */
  longTasks: number;
  longTasksOfProcessor: number;
}

/** Scroll by so many pixels a frame, until the end or for so many frames, and return the frame times. */
export async function scrolled(browser: Browser, page: Page, pixels: number, frames: number): Promise<FrameTimes> {
  await browser.startTracing(page, { categories: CATEGORIES });
  await page.evaluate(scrollBy, { pixels, frames });
  const trace = JSON.parse((await browser.stopTracing()).toString()) as { traceEvents: TraceEvent[] };
  return frameTimes(trace.traceEvents);
}

/** In the page: scroll a little in each frame. */
function scrollBy({ pixels, frames }: { pixels: number; frames: number }): Promise<void> {
  const scroller = document.querySelector(".scroller");
  if (scroller === null) throw new Error("no room is shown");
  return new Promise((done) => {
    let left = frames;
    let stuck = 0;
    const step = (): void => {
      const before = scroller.scrollTop;
      scroller.scrollBy(0, pixels);
      stuck = scroller.scrollTop === before ? stuck + 1 : 0;
      left -= 1;
      if (left === 0 || stuck > 60) done();
      else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
}

function frameTimes(events: readonly TraceEvent[]): FrameTimes {
  const main = events.find(({ name, args }) => name === "thread_name" && args?.name === "CrRendererMain");
  if (main === undefined) throw new Error("the trace has no main thread");
  const inPage = events.filter(({ pid }) => pid === main.pid);
  const tasks = inPage.filter(({ name, tid }) => name === "RunTask" && tid === main.tid);
  const drawn = timesOf(inPage, "DrawFrame");
  const intervals = drawn.slice(1).map((time, index) => (time - (drawn[index] ?? time)) / 1_000);
  const perFrame = processorTimes(timesOf(inPage, "BeginMainThreadFrame"), tasks);
  return {
    interval: distribution(intervals),
    shareOver16_7: shareOver(intervals, 17.2), // 60 a second is 16.67 ms, and the clock is not exact
    shareOver33: shareOver(intervals, 33.9),
    mainThread: distribution(perFrame),
    mainThreadShareOver16_7: shareOver(perFrame, 16.7),
    longTasks: tasks.filter(({ dur = 0 }) => dur > LONG_TASK_MS * 1_000).length,
    longTasksOfProcessor: tasks.filter(({ tdur = 0 }) => tdur > LONG_TASK_MS * 1_000).length,
  };
}

const timesOf = (events: readonly TraceEvent[], wanted: string): number[] =>
  events
    .filter(({ name }) => name === wanted)
    .map(({ ts }) => ts)
    .sort((one, other) => one - other);

/** The processor time of the tasks that begin between one frame and the next. */
function processorTimes(frames: readonly number[], tasks: readonly TraceEvent[]): number[] {
  const sorted = [...tasks].sort((one, other) => one.ts - other.ts);
  const sums: number[] = [];
  let index = 0;
  for (const [number, begin] of frames.entries()) {
    const end = frames[number + 1];
    if (end === undefined) break;
    let sum = 0;
    for (let task = sorted[index]; task !== undefined && task.ts < end; task = sorted[(index += 1)]) {
      if (task.ts >= begin) sum += (task.tdur ?? 0) / 1_000;
    }
    sums.push(sum);
  }
  return sums;
}

export function distribution(values: readonly number[]): Distribution {
  const sorted = [...values].sort((one, other) => one - other);
  const at = (share: number): number =>
    Number((sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0).toFixed(2));
  return { count: sorted.length, median: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

const shareOver = (values: readonly number[], limit: number): number =>
  Number((values.filter((value) => value > limit).length / Math.max(1, values.length)).toFixed(4));
