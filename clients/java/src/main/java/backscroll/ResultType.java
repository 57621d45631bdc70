package backscroll;

/**
 * The type of an operation's result.
 *
 * @param shape how many there are
 * @param type the class of one
 */
public record ResultType(Shape shape, Class<?> type) {
  /** How many values a result has. */
  public enum Shape {
    /** None: the result is null. */
    NOTHING,
    /** Exactly one. */
    ONE,
    /** One or none, as an {@link java.util.Optional}. */
    OPTIONAL,
    /** A list of them. */
    LIST,
    /** Whatever the daemon answers, as maps, lists, texts and numbers. */
    ANYTHING
  }

  /** The type of what has no result. */
  public static final ResultType NOTHING = new ResultType(Shape.NOTHING, Void.class);

  /** The type of the result of an operation of a later level. */
  public static final ResultType ANYTHING = new ResultType(Shape.ANYTHING, Object.class);

  /**
   * One value.
   *
   * @param type its class
   * @return the type
   */
  public static ResultType of(Class<?> type) {
    return new ResultType(Shape.ONE, type);
  }

  /**
   * One value or none.
   *
   * @param type its class
   * @return the type
   */
  public static ResultType optional(Class<?> type) {
    return new ResultType(Shape.OPTIONAL, type);
  }

  /**
   * A list of values.
   *
   * @param type the class of each
   * @return the type
   */
  public static ResultType listOf(Class<?> type) {
    return new ResultType(Shape.LIST, type);
  }
}
