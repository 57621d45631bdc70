package backscroll;

import java.io.Serializable;
import java.util.Map;

/**
 * What an error says: of the daemon's reply, or of this client itself.
 *
 * @param code the code of the protocol, such as {@code not-found}; it may be one of a later level
 * @param message what happened and what to do
 * @param fault on whose side the reason lies: {@code caller} or {@code daemon}
 * @param retryable whether the same request may succeed later
 * @param details more about the error, such as the {@code path} of a field; empty if there is none
 * @serial exclude
 */
public record ErrorReply(
    String code, String message, String fault, boolean retryable, Map<String, Object> details)
    implements Serializable {
  /**
   * Replaces null details by empty ones.
   *
   * @param code as in the record
   * @param message as in the record
   * @param fault as in the record
   * @param retryable as in the record
   * @param details as in the record
   */
  public ErrorReply {
    details = details == null ? Map.of() : details;
  }

  /**
   * Whether the reason lies on the caller's side.
   *
   * @return true if so
   */
  public boolean isByCaller() {
    return fault.equals("caller");
  }
}
