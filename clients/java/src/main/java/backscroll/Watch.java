package backscroll;

import backscroll.internal.Json;
import backscroll.records.ChangePage;
import backscroll.records.Noun;
import backscroll.requests.GetChanges;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The results of a query, now and whenever they changed; made by {@link Client#watch}.
 *
 * @param <R> the type of the result
 */
public final class Watch<R> extends Feed<Watched<R>> {
  private static final Set<Noun> NOUNS_IN_ROOMS =
      Set.of(Noun.MESSAGE, Noun.ROOM, Noun.MEMBER, Noun.BAN);

  private final Query<R> query;
  private final GetChanges question;
  private String cursor;
  private Watched<R> given;
  private long newest;
  private boolean isGap;

  Watch(Client client, Query<R> query) {
    super(client);
    this.query = query;
    this.question = whatMayChange(query);
  }

  @Override
  void begin() {
    cursor = now(); // first, so that what changes while the query is answered is asked for later
  }

  @Override
  Watched<R> advance() {
    while (true) {
      if (given != null) {
        waitForChange();
      }
      Answer<R> answer = ask(query);
      // Requests are answered in order, so only another history has a lower number.
      isGap |= answer.seq() < newest;
      newest = answer.seq();
      if (isGap || given == null || !given.result().equals(answer.result())) {
        given = new Watched<>(answer.result(), answer.seq(), isGap);
        isGap = false;
        return given;
      }
    }
  }

  /** Waits for a change; afterwards the cursor is older than any later result. */
  private void waitForChange() {
    while (true) {
      ChangePage page = pageAfter(cursor, question);
      if (page.more()) {
        jump(page.cursor());
        return;
      }
      cursor = page.cursor();
      isGap |= isGap(page);
      if (isGap(page) || !page.changes().isEmpty()) {
        return;
      }
    }
  }

  /** Leaves out the changes until now. That the old cursor still fits shows that this is no gap. */
  private void jump(String old) {
    String now = now();
    ChangePage page = ask(question.withAfter(old).withLimit(1)).result();
    isGap |= isGap(page);
    cursor = isGap(page) ? page.cursor() : now;
  }

  /** The changes after which a query may have another result; it knows them by its type. */
  private static GetChanges whatMayChange(Query<?> query) {
    List<Noun> nouns = Call.infoOf(query.operation()).reads();
    GetChanges question = GetChanges.of().withValues(false);
    if (nouns.isEmpty()) {
      return question;
    }
    Object roomId = Json.convert(query, Map.class).get("roomId");
    boolean isInRoom = roomId instanceof String && NOUNS_IN_ROOMS.containsAll(nouns);
    return (isInRoom ? question.withRooms(List.of((String) roomId)) : question).withNouns(nouns);
  }
}
