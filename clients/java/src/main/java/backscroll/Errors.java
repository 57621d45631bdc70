package backscroll;

import backscroll.errors.InternalException;
import backscroll.errors.InvalidException;
import backscroll.errors.TooLargeException;
import backscroll.errors.UnavailableException;
import java.util.Map;

/** The errors that the client makes itself. */
final class Errors {
  private Errors() {}

  static InvalidException invalid(String message) {
    return new InvalidException(new ErrorReply("invalid", message, "caller", false, Map.of()));
  }

  /** A refusal that names the field which it is about. */
  static InvalidException invalidAt(String path, String problem) {
    String message = path + ": " + problem;
    return new InvalidException(
        new ErrorReply("invalid", message, "caller", false, Map.of("path", path)));
  }

  static TooLargeException tooLarge(String message) {
    return new TooLargeException(new ErrorReply("too-large", message, "caller", false, Map.of()));
  }

  /** Nothing was sent, and the same request may succeed later. */
  static UnavailableException unavailable(String message) {
    return new UnavailableException(
        new ErrorReply("unavailable", message, "daemon", true, Map.of()));
  }

  /** Nothing was sent, and waiting does not help. */
  static UnavailableException unusable(String message) {
    return new UnavailableException(
        new ErrorReply("unavailable", message, "daemon", false, Map.of()));
  }

  static InternalException internal(String message) {
    return new InternalException(new ErrorReply("internal", message, "daemon", false, Map.of()));
  }
}
