package backscroll;

/**
 * One operation with its payload. The records in {@code backscroll.requests} are the requests of
 * this level.
 *
 * @param <R> the type of the result
 */
public interface Request<R> {
  /**
   * The name of the operation in the protocol.
   *
   * @return the name, such as {@code save-message}
   */
  String operation();
}
