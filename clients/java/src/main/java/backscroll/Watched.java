package backscroll;

/**
 * A result of a watched query.
 *
 * @param <R> the type of the result
 * @param result the result
 * @param seq the number of the scope's commit that it reflects
 * @param gap whether the scope has another history than at the result before, and perhaps fewer
 *     commits
 */
public record Watched<R>(R result, long seq, boolean gap) {}
