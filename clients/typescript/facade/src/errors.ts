/** The errors of the facade; all others are those of the language. */

/** No account is open: `initialize` or `switchScope` was not called, is not done yet, or failed. Nothing was sent. */
export class NotReadyError extends Error {
  override readonly name = "NotReadyError";

  constructor(
    message = "no account is open: await initialize(userId) or switchScope(userId) first, or wait until isReady is true",
  ) {
    super(message);
  }
}

/**
 * The account was switched, or the service closed, while the call was on its way. Its result is dropped; a command may
 * have taken effect, in the account that it was called in.
 */
export class ScopeSwitchedError extends Error {
  override readonly name = "ScopeSwitchedError";

  constructor() {
    super("the account was switched, or the database closed, while this call was on its way; its result is dropped");
  }
}
