package backscroll;

/**
 * The daemon could not execute the request; {@link #isRetryable} says whether it may succeed later.
 * It had no effect. The codes of this level have subclasses, such as {@link
 * backscroll.errors.BusyException}.
 */
public non-sealed class DaemonException extends BackscrollException {
  private static final long serialVersionUID = 1L;

  /**
   * An error that is the daemon's fault.
   *
   * @param reply what the daemon said, or this client itself
   */
  public DaemonException(ErrorReply reply) {
    super(reply);
  }
}
