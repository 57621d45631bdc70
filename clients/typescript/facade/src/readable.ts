/** Values that can be observed, in the form that every framework can take up. */

/** A value that changes, and tells when it did. */
export interface Readable<T> {
  readonly value: T;
  /** Calls the listener after each change, until the returned function is called. */
  subscribe(listener: () => void): () => void;
}

/** A value that its owner sets. */
export class State<T> implements Readable<T> {
  #value: T;
  readonly #listeners = new Set<{ call: () => void }>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  /** How many listeners there are. */
  get listeners(): number {
    return this.#listeners.size;
  }

  /** Each call is a subscription of its own, also with a listener that there is already. */
  subscribe(listener: () => void): () => void {
    const subscription = { call: listener };
    this.#listeners.add(subscription);
    return () => {
      this.#listeners.delete(subscription);
    };
  }

  set(value: T): void {
    this.assign(value)();
  }

  /** Set the value; the listeners are told by the function that is returned, so that several values change as one. */
  assign(value: T): () => void {
    if (Object.is(value, this.#value)) return () => undefined;
    this.#value = value;
    return () => {
      for (const subscription of [...this.#listeners]) {
        if (this.#listeners.has(subscription)) callSafely(subscription.call);
      }
    };
  }
}

/** Call a listener; what it throws is reported like any uncaught error, and keeps nobody else from being told. */
function callSafely(listener: () => void): void {
  try {
    listener();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
