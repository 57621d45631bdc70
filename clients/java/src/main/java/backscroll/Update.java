package backscroll;

import java.util.Objects;

/**
 * What an update does with a field that can be empty: leave it as it is, clear it, or set it. The
 * records for updates, such as {@link backscroll.records.MessageUpdates}, have a {@code with…} and
 * a {@code clear…} method for each such field.
 *
 * @param <T> the type of the field
 */
public sealed interface Update<T> {
  /**
   * The field stays as it is.
   *
   * @param <T> the type of the field
   */
  record Keep<T>() implements Update<T> {}

  /**
   * The field becomes empty.
   *
   * @param <T> the type of the field
   */
  record Clear<T>() implements Update<T> {}

  /**
   * The field gets a value.
   *
   * @param <T> the type of the field
   * @param value the value, not null
   */
  record Set<T>(T value) implements Update<T> {
    /**
     * Refuses null.
     *
     * @param value as in the record
     */
    public Set {
      Objects.requireNonNull(
          value, "null sets no field: to remove what is stored, clear the field");
    }
  }

  /**
   * Leave the field as it is.
   *
   * @param <T> the type of the field
   * @return the update
   */
  static <T> Update<T> keep() {
    return new Keep<>();
  }

  /**
   * Clear the field.
   *
   * @param <T> the type of the field
   * @return the update
   */
  static <T> Update<T> clear() {
    return new Clear<>();
  }

  /**
   * Set the field.
   *
   * @param <T> the type of the field
   * @param value the value; to clear the field use {@link #clear}
   * @return the update
   */
  static <T> Update<T> set(T value) {
    return new Set<>(value);
  }

  /**
   * The update, or {@link #keep} for null.
   *
   * @param <T> the type of the field
   * @param update an update or null
   * @return the update, never null
   */
  static <T> Update<T> orKeep(Update<T> update) {
    return update == null ? keep() : update;
  }
}
