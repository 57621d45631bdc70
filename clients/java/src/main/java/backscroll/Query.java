package backscroll;

/**
 * A request that asks about what is stored, and whose result {@link Client#watch} follows.
 *
 * @param <R> the type of the result
 */
public interface Query<R> extends Request<R> {}
