package backscroll;

/**
 * A cursor is of another history of the scope, because its files were restored from a copy or it
 * was deleted. What changed since is unknown: read everything anew, and then go on with {@link
 * Client#changes} after {@link #cursor}.
 */
public final class FeedGapException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /** Where to go on. */
  private final String cursor;

  FeedGapException(String cursor) {
    super(
        "the cursor belongs to another history of this scope, because its files were restored from"
            + " a copy or it was deleted: read everything anew, and then go on with changes after"
            + " the exception's cursor()");
    this.cursor = cursor;
  }

  /**
   * Where to go on.
   *
   * @return the cursor
   */
  public String cursor() {
    return cursor;
  }
}
