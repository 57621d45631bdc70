package backscroll;

import java.util.Map;

/**
 * No reply came in time, or the client was closed: whether the request took effect is unknown. To
 * find out, send it again under the same {@link RequestOptions#requestId}.
 */
public final class NoReplyException extends BackscrollException {
  private static final long serialVersionUID = 1L;

  NoReplyException(String message) {
    super(new ErrorReply("no-reply", message, "daemon", false, Map.of()));
  }
}
