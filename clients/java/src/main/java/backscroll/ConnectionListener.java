package backscroll;

/**
 * Hears of a client's connections. It is called on the client's thread, and must not wait there.
 */
public interface ConnectionListener {
  /** A connection was made. */
  default void connected() {}

  /**
   * A connection was lost, or could not be made. While there are requests the client tries again.
   *
   * @param problem why
   */
  default void disconnected(BackscrollException problem) {}
}
