package backscroll.internal;

import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What the constructors of records do with what they are given. */
public final class Values {
  private Values() {}

  /**
   * A list that does not change; its items may be null.
   *
   * @param <T> the type of the items
   * @param list a list or null
   * @return the list or null
   */
  public static <T> List<T> copyOf(List<T> list) {
    // What is unmodifiable already is not wrapped, and so not copied, again.
    if (list == null || Collections.unmodifiableList(list) == list) {
      return list;
    }
    return Collections.unmodifiableList(new ArrayList<>(list));
  }

  /**
   * A map that does not change; its values may be null.
   *
   * @param <T> the type of the values
   * @param map a map or null
   * @return the map or null
   */
  public static <T> Map<String, T> copyOf(Map<String, T> map) {
    if (map == null || Collections.unmodifiableMap(map) == map) {
      return map;
    }
    return Collections.unmodifiableMap(new LinkedHashMap<>(map));
  }

  /**
   * Fields of a later level.
   *
   * @param fields the fields or null
   * @return the fields, never null
   */
  public static Map<String, Object> orEmpty(Map<String, Object> fields) {
    return fields == null || fields.isEmpty() ? Map.of() : copyOf(fields);
  }

  /**
   * The time in whole milliseconds, which is what the daemon stores.
   *
   * @param time a time or null
   * @return the time or null
   */
  public static Instant millis(Instant time) {
    return time == null ? null : time.truncatedTo(ChronoUnit.MILLIS);
  }

  /**
   * A value of free JSON as a record.
   *
   * @param value what JSON has
   * @param type the class of the record, or null if that is not known
   * @return the record if the value is a map and the class is known, otherwise the value
   */
  public static Object typed(Object value, Class<?> type) {
    return type != null && value instanceof Map ? Json.convert(value, type) : value;
  }
}
