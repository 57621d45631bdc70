import { BackscrollError } from "@backscroll/facade";

const PAUSE_MS = 250;

/**
 * What `act` returns, tried again while the reason of a failure may go away, such as a daemon that is being started
 * again. `act` has to be a query, or a command that may be repeated.
 */
export async function untilDone<Result>(act: () => Promise<Result>): Promise<Result> {
  for (;;) {
    try {
      return await act();
    } catch (error) {
      if (!isTemporary(error)) throw error;
    }
    await new Promise((resume) => setTimeout(resume, PAUSE_MS));
  }
}

/** Whether the same call may succeed later; without a reply its outcome is unknown. */
function isTemporary(error: unknown): boolean {
  return error instanceof BackscrollError && (error.retryable || error.code === "no-reply");
}

/** What went wrong, in words for a person. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
