package backscroll;

import static backscroll.FakeDaemon.ok;
import static backscroll.FakeDaemon.pong;
import static backscroll.FakeDaemon.type;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.UnavailableException;
import backscroll.records.ItemChange;
import backscroll.records.Message;
import backscroll.records.Noun;
import backscroll.records.User;
import backscroll.requests.GetMessages;
import backscroll.requests.GetUser;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Following what changes, over restarts and other histories. */
class FeedTest {
  @RegisterExtension final Scene scene = new Scene();

  private static List<ItemChange> taken(Changes changes, int count) {
    List<ItemChange> items = new ArrayList<>();
    Iterator<ItemChange> iterator = changes.iterator();
    while (items.size() < count && iterator.hasNext()) {
      items.add(iterator.next());
    }
    return items;
  }

  /** Changes come in order, from the beginning, over restarts, and go on after a stored cursor. */
  @Test
  void changesComeInOrderAndOverRestarts() throws Exception {
    TestDaemon daemon = scene.daemon();
    Client client = scene.client(daemon.dataDir);
    for (int number = 1; number <= 3; number++) {
      client.saveMessage(Scene.message(number));
    }
    ChangesOptions options = ChangesOptions.fromTheBeginning().withNouns(Noun.MESSAGE).withLimit(2);
    Changes changes = client.changes(options);
    List<String> ids = taken(changes, 3).stream().map(ItemChange::id).toList();
    assertEquals(List.of("m1", "m2", "m3"), ids);
    assertTrue(changes.isAtPageEnd());

    CompletableFuture<List<ItemChange>> next =
        CompletableFuture.supplyAsync(() -> taken(changes, 2));
    for (int number = 4; number <= 5; number++) {
      daemon.restart();
      client.saveMessage(Scene.message(number));
    }
    ItemChange fourth = next.join().get(0);
    assertEquals("4", assertInstanceOf(Message.class, fourth.value()).content());
    assertEquals(5, next.join().get(1).seq());

    try (Changes again = client.changes(ChangesOptions.after(changes.cursor()))) {
      client.deleteRoom("r1");
      ItemChange deleted = taken(again, 1).get(0);
      assertEquals(Boolean.TRUE, deleted.gone());
      assertEquals("r1", deleted.roomId());
    }
  }

  /** A cursor of another history is a gap, with a cursor to go on with. */
  @Test
  void cursorOfAnotherHistoryIsGap() throws Exception {
    Client client = scene.client();
    client.saveMessage(Scene.message(1));
    client.saveMessage(Scene.message(2));
    Changes changes = client.changes(ChangesOptions.fromTheBeginning());
    taken(changes, 2);
    client.deleteScope();
    client.saveMessage(Scene.message(3));
    FeedGapException gap = assertThrows(FeedGapException.class, () -> taken(changes, 1));
    assertNotNull(gap.cursor());
  }

  private record Seen(int length, long seq, boolean gap) {}

  /** A watched query gives each new result, over restarts and gaps, and ends with its client. */
  @Test
  void watchedQueryGivesEachNewResult() throws Exception {
    TestDaemon daemon = scene.daemon();
    Client client = scene.client(daemon.dataDir);
    Client other = scene.client(daemon.dataDir);
    List<Seen> seen = new CopyOnWriteArrayList<>();
    CompletableFuture<Void> watching =
        CompletableFuture.runAsync(
            () -> {
              for (Watched<List<Message>> each : client.watch(GetMessages.of("r1"))) {
                seen.add(new Seen(each.result().size(), each.seq(), each.gap()));
              }
            });
    sees(seen, 0);
    other.saveMessage(Scene.message(1));
    sees(seen, 1);
    daemon.restart();
    other.saveMessage(Scene.message(2));
    sees(seen, 2);
    other.saveMessage(Scene.message(3).withRoomId("r2")); // changes another room
    other.deleteScope();
    sees(seen, 0);
    assertTrue(seen.get(seen.size() - 1).gap());
    assertEquals(
        List.of(new Seen(0, 0, false), new Seen(1, 1, false), new Seen(2, 2, false)),
        seen.subList(0, 3));
    client.close();
    watching.join();
  }

  private static void sees(List<Seen> seen, int length) throws Exception {
    Scene.waitUntil(() -> !seen.isEmpty() && seen.get(seen.size() - 1).length() == length);
  }

  /** A loop ends when its feed is closed by another thread, or the client. */
  @Test
  void loopEndsWhenItIsClosed() throws Exception {
    Client client = scene.client();
    Changes changes = client.changes(ChangesOptions.fromNow());
    CompletableFuture<Boolean> waiting =
        CompletableFuture.supplyAsync(() -> changes.iterator().hasNext());
    Scene.waitUntil(() -> changes.cursor() != null);
    changes.close();
    assertFalse(waiting.join());

    Watch<Optional<User>> watch = client.watch(GetUser.of("u"));
    assertEquals(Optional.empty(), watch.iterator().next().result());
    CompletableFuture<Boolean> ended =
        CompletableFuture.supplyAsync(() -> watch.iterator().hasNext());
    client.close();
    assertFalse(ended.join());
    assertFalse(client.watch(GetUser.of("u")).iterator().hasNext());
  }

  /** Without a daemon at the start it throws. */
  @Test
  void withoutDaemonAtTheStartItThrows() throws Exception {
    Client client =
        scene.closed(
            Client.builder().dataDir(scene.directory()).timeout(Duration.ofMillis(50)).connect());
    Changes changes = client.changes(ChangesOptions.fromTheBeginning());
    assertThrows(UnavailableException.class, () -> changes.iterator().hasNext());
    Watch<?> watch = client.watch(GetUser.of("u"));
    assertThrows(UnavailableException.class, () -> watch.iterator().next());
  }

  /** A change of a later noun keeps what it has. */
  @Test
  void changeOfLaterNounKeepsWhatItHas() throws Exception {
    Map<String, Object> change =
        Map.of(
            "seq",
            1,
            "at",
            1,
            "requestId",
            "x",
            "noun",
            "moon",
            "id",
            "m",
            "value",
            Map.of("phase", "full"));
    Map<String, Object> page = Map.of("changes", List.of(change), "cursor", "c", "more", false);
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> type(request).equals("ping") ? pong(request) : ok(request, page));
    Changes changes = scene.client(fake).changes(ChangesOptions.fromTheBeginning());
    ItemChange found = taken(changes, 1).get(0);
    assertEquals(Noun.of("moon"), found.noun());
    assertEquals(Map.of("phase", "full"), found.value());
  }
}
