package backscroll;

import backscroll.records.ChangePage;
import backscroll.records.ItemChange;
import backscroll.requests.GetChanges;
import java.util.ArrayDeque;

/** The changes of a scope, one after the other, for ever; made by {@link Client#changes}. */
public final class Changes extends Feed<ItemChange> {
  private final GetChanges query;
  private final boolean beginsNow;
  private final ArrayDeque<ItemChange> page = new ArrayDeque<>();

  /** Where to go on after the page. */
  private String afterPage;

  private String cursor;
  private boolean isAtPageEnd = true;

  Changes(Client client, ChangesOptions options) {
    super(client);
    query = options.query();
    beginsNow = ChangesOptions.NOW.equals(options.after());
    cursor = beginsNow ? null : options.after();
    afterPage = cursor;
  }

  /**
   * Where to begin the next time: after the latest page of changes of which all were given out.
   *
   * @return the cursor; null at the beginning of the feed, and after {@link ChangesOptions#NOW}
   *     until its end was found
   */
  public String cursor() {
    return cursor;
  }

  /**
   * Whether {@link #cursor} is after the latest change, and not after one before it.
   *
   * @return true if so
   */
  public boolean isAtPageEnd() {
    return isAtPageEnd;
  }

  @Override
  void begin() {
    if (beginsNow) {
      cursor = now();
      afterPage = cursor;
    }
  }

  @Override
  ItemChange advance() {
    while (page.isEmpty()) {
      ChangePage next = pageAfter(afterPage, query);
      if (isGap(next)) {
        throw new FeedGapException(next.cursor());
      }
      page.addAll(next.changes());
      afterPage = next.cursor();
      if (page.isEmpty()) {
        cursor = afterPage;
      }
    }
    return page.remove();
  }

  @Override
  void given(ItemChange item) {
    isAtPageEnd = page.isEmpty();
    if (isAtPageEnd) {
      cursor = afterPage;
    }
  }
}
