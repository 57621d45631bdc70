package backscroll;

import backscroll.records.Noun;
import backscroll.requests.GetChanges;
import java.util.List;

/**
 * Where to begin with the changes of a scope, and what to leave out. What is null is not limited.
 *
 * @param after the cursor to begin after; null for the first command of the log
 * @param rooms only what is in these rooms
 * @param nouns only these kinds of items
 * @param values false for which items changed, and not what they are
 * @param limit about how many changes are read at once
 */
public record ChangesOptions(
    String after, List<String> rooms, List<Noun> nouns, Boolean values, Long limit) {
  /** The cursor of the end of the feed, wherever that is. */
  public static final String NOW = "now";

  /**
   * All changes, from the first command of the log on.
   *
   * @return the options
   */
  public static ChangesOptions fromTheBeginning() {
    return new ChangesOptions(null, null, null, null, null);
  }

  /**
   * The changes after a cursor.
   *
   * @param cursor the cursor that was stored with what was applied
   * @return the options
   */
  public static ChangesOptions after(String cursor) {
    return new ChangesOptions(cursor, null, null, null, null);
  }

  /**
   * What changes from now on.
   *
   * @return the options
   */
  public static ChangesOptions fromNow() {
    return after(NOW);
  }

  /**
   * A copy for some rooms.
   *
   * @param rooms the ids of the rooms
   * @return the copy
   */
  public ChangesOptions withRooms(String... rooms) {
    return new ChangesOptions(after, List.of(rooms), nouns, values, limit);
  }

  /**
   * A copy for some kinds of items.
   *
   * @param nouns the kinds
   * @return the copy
   */
  public ChangesOptions withNouns(Noun... nouns) {
    return new ChangesOptions(after, rooms, List.of(nouns), values, limit);
  }

  /**
   * A copy with or without the items.
   *
   * @param values false for which items changed, and not what they are
   * @return the copy
   */
  public ChangesOptions withValues(boolean values) {
    return new ChangesOptions(after, rooms, nouns, values, limit);
  }

  /**
   * A copy with a size of pages.
   *
   * @param limit about how many changes are read at once
   * @return the copy
   */
  public ChangesOptions withLimit(long limit) {
    return new ChangesOptions(after, rooms, nouns, values, limit);
  }

  GetChanges query() {
    return new GetChanges(null, null, limit, rooms, nouns, values);
  }
}
