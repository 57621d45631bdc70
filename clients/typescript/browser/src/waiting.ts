/** Queries that wait for a command to take effect. */

/** So many may wait; then the oldest is answered with what there is. */
const WAITING_MAX = 64;

/** One query that may wait. */
interface Turn {
  /** Whether a command took effect since the turn began; false after some milliseconds without one. */
  isWoken: (ms: number) => Promise<boolean>;
  leave: () => void;
}

export class Waiting {
  readonly #turns = new Set<(isWoken: boolean) => void>();

  /** Begin to listen. */
  enter(): Turn {
    let resolve: (isWoken: boolean) => void = () => undefined;
    const settled = new Promise<boolean>((fulfil) => (resolve = fulfil));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const settle = (isWoken: boolean): void => {
      this.#turns.delete(settle);
      resolve(isWoken);
    };
    this.#turns.add(settle);
    const [oldest] = this.#turns;
    if (this.#turns.size > WAITING_MAX) oldest?.(false);
    return {
      isWoken: (ms) => {
        timer = setTimeout(settle, ms, false);
        return settled;
      },
      leave: () => {
        clearTimeout(timer);
        this.#turns.delete(settle);
      },
    };
  }

  /** A command took effect, or what waits has to look again. */
  wake(): void {
    for (const settle of this.#turns) settle(true);
  }
}
