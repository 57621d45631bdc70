package backscroll;

/**
 * A request that may be one of the commands of a {@link backscroll.requests.Batch}.
 *
 * @param <R> the type of the result
 */
public interface BatchCommand<R> extends Request<R> {}
