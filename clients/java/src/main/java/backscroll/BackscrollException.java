package backscroll;

import backscroll.errors.ErrorTable;
import java.util.List;
import java.util.Map;

/**
 * The base of all exceptions for requests. Each code of the protocol has a class in {@code
 * backscroll.errors}; a code of a later level is a {@link CallerException} or a {@link
 * DaemonException}.
 */
public abstract sealed class BackscrollException extends RuntimeException
    permits CallerException, DaemonException, NoReplyException {
  private static final long serialVersionUID = 1L;

  /** What the error says. */
  private final ErrorReply reply;

  BackscrollException(ErrorReply reply) {
    super(reply.message());
    this.reply = reply;
  }

  /**
   * The code of the protocol.
   *
   * @return the code, such as {@code not-found}; it may be one of a later level
   */
  public String code() {
    return reply.code();
  }

  /**
   * On whose side the reason lies.
   *
   * @return {@code caller} or {@code daemon}
   */
  public String fault() {
    return reply.fault();
  }

  /**
   * Whether the same request may succeed later.
   *
   * @return true if so
   */
  public boolean isRetryable() {
    return reply.retryable();
  }

  /**
   * More about the error.
   *
   * @return the details, such as the {@code path} of the field that it is about
   */
  public Map<String, Object> details() {
    return reply.details();
  }

  /**
   * The commands of a batch that failed, in their order.
   *
   * @return the commands; empty if the error is about something else
   */
  public List<FailedCommand> failures() {
    return FailedCommand.listedIn(details().get("failures"));
  }

  /** The same error, with the stack of the thread that waited for it, and this one as its cause. */
  BackscrollException atCaller() {
    BackscrollException same =
        this instanceof NoReplyException
            ? new NoReplyException(getMessage())
            : ErrorTable.exceptionFor(reply);
    same.initCause(this);
    return same;
  }
}
