package backscroll;

import backscroll.records.Noun;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/**
 * What an operation is.
 *
 * @param name its name in the protocol, such as {@code save-message}
 * @param kind whether it changes something, and what the daemon remembers of it
 * @param result the type of its result
 * @param reads of a query, the kinds of items that it reads; empty if these may be any
 */
public record OperationInfo(String name, Kind kind, ResultType result, List<Noun> reads) {
  /** What the daemon does with the requests of an operation. */
  public enum Kind {
    /** It changes what is stored, and takes effect once, however often it is sent. */
    COMMAND,
    /** It reads what is stored. */
    QUERY,
    /** It is about whole scopes, logs, tokens or keys, and is not sent again by itself. */
    MAINTENANCE,
    /** It is about the daemon. */
    BUILT_IN
  }

  /**
   * Copies the list.
   *
   * @param name as in the record
   * @param kind as in the record
   * @param result as in the record
   * @param reads as in the record
   */
  public OperationInfo {
    reads = List.copyOf(reads);
  }

  /**
   * Operations by their names.
   *
   * @param operations the operations
   * @return the map
   */
  public static Map<String, OperationInfo> byName(OperationInfo... operations) {
    return Arrays.stream(operations)
        .collect(Collectors.toUnmodifiableMap(OperationInfo::name, Function.identity()));
  }
}
