package backscroll;

/**
 * A result, and the number of the scope's commit that it reflects.
 *
 * @param <R> the type of the result
 * @param result the result; null for commands that have none
 * @param seq the number of the commit: of a command its own, of a query that of its snapshot
 */
public record Answer<R>(R result, long seq) {}
