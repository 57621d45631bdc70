package backscroll;

import static backscroll.FakeDaemon.ok;
import static backscroll.FakeDaemon.pong;
import static backscroll.FakeDaemon.refusal;
import static backscroll.FakeDaemon.type;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.BusyException;
import backscroll.errors.ForbiddenException;
import backscroll.errors.InternalException;
import backscroll.errors.InvalidException;
import backscroll.errors.UnavailableException;
import backscroll.records.AccessToken;
import backscroll.records.ChangePage;
import backscroll.records.Message;
import backscroll.records.Right;
import backscroll.requests.DeleteScope;
import backscroll.requests.GetChanges;
import backscroll.requests.Ping;
import backscroll.requests.SaveMessage;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Sending again, against a daemon that does what a test says; {@link LossesTest} has real ones. */
class RetryTest {
  private static final int MEGABYTE = 1 << 20;
  private static final ThreadMXBean CPU = ManagementFactory.getThreadMXBean();

  @RegisterExtension final Scene scene = new Scene();

  /** At most 1,000 requests are in flight; the others follow, in order, when there is room. */
  @Test
  void atMostThousandRequestsAreInFlight() throws Exception {
    AtomicBoolean isHolding = new AtomicBoolean(true);
    FakeDaemon fake = scene.fake((request, peer) -> isHolding.get() ? null : ok(request));
    Client client = scene.client(fake);
    List<CompletableFuture<Void>> calls =
        IntStream.range(0, 1_500)
            .mapToObj(number -> client.async().saveMessage(Scene.message(number)))
            .toList();
    Scene.waitUntil(() -> fake.bodies.size() == 1_000);
    isHolding.set(false);
    fake.cut();
    calls.forEach(CompletableFuture::join);
    List<String> sent = fake.all("/payload/message/id");
    List<String> expected = IntStream.range(0, 1_500).mapToObj(number -> "m" + number).toList();
    assertEquals(expected, sent.subList(1_000, sent.size()));
  }

  private static Call call(Request<?> request, String requestId) {
    Call.Envelope envelope = new Call.Envelope(Scene.LONG.toMillis(), null, requestId, null);
    return new Call(request.operation(), request, envelope, 0, (call, answer, error) -> {});
  }

  private static Reply reply(String id) {
    return new Reply(id, true, new Answer<>(null, 1), null);
  }

  /** A call of a long queue costs as much as one of a short queue. */
  @Test
  void callOfLongQueueCostsNoMore() {
    nanosPerCall(10_000); // the code is compiled meanwhile
    long shorter = nanosPerCall(10_000);
    long longer = nanosPerCall(60_000);
    assertTrue(longer < 4 * shorter, shorter + " ns, " + longer + " ns");
  }

  private static long nanosPerCall(int length) {
    PendingCalls pending = new PendingCalls();
    for (int number = 0; number < length; number++) {
      Call call = call(new Ping(), null);
      pending.reserve(call);
      pending.add(call);
    }
    long begun = CPU.getCurrentThreadCpuTime(); // others may have the processor meanwhile
    for (Call call = pending.next(); call != null; call = pending.next()) {
      pending.markSent(call, 0, null);
      pending.handleReply(reply(call.id), 0);
    }
    assertEquals(0, pending.size());
    return (CPU.getCurrentThreadCpuTime() - begun) / length;
  }

  /**
   * What waits to be sent is bounded, also in bytes, and there is room again when one is dropped.
   */
  @Test
  void whatWaitsIsBounded() {
    PendingCalls pending = new PendingCalls();
    SaveMessage large = SaveMessage.of(Scene.message(1, "x".repeat(MEGABYTE)));
    List<Call> calls = IntStream.range(0, 255).mapToObj(number -> call(large, null)).toList();
    calls.forEach(pending::reserve);
    calls.forEach(pending::add);
    Call oneMore = call(large, null);
    BusyException error = assertThrows(BusyException.class, () -> pending.reserve(oneMore));
    assertTrue(
        error
            .getMessage()
            .matches(
                "255 requests of this client, of \\d+ bytes, have no reply yet: wait for some;"
                    + " nothing was sent"));
    pending.forget(calls.get(0));
    pending.reserve(oneMore);
  }

  /** The window has room again when an abandoned command and its repetition have their replies. */
  @Test
  void windowHasRoomAfterAbandonedCommands() {
    PendingCalls pending = new PendingCalls();
    SaveMessage large = SaveMessage.of(Scene.message(1, "x".repeat(MEGABYTE)));
    for (int times = 0; times < 40; times++) {
      Call abandoned = call(large, "mine");
      send(pending, abandoned);
      pending.forget(abandoned);
      send(pending, call(large, "mine"));
      pending.handleReply(reply("mine"), 0);
      assertEquals(1, pending.size());
      pending.handleReply(reply("mine"), 0);
      assertEquals(0, pending.size());
    }
    for (int times = 0; times < 31; times++) {
      send(pending, call(large, null));
    }
  }

  private static void send(PendingCalls pending, Call call) {
    pending.add(call);
    assertEquals(call, pending.next());
    pending.markSent(call, 0, null);
  }

  /** A retry has the same payload byte for byte, and the deadline that is left. */
  @Test
  void retryHasTheSamePayload() throws Exception {
    AtomicReference<FakeDaemon> self = new AtomicReference<>();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              if (self.get().connections.get() > 2) {
                return ok(request);
              }
              peer.close();
              return null;
            });
    self.set(fake);
    Map<String, Object> metadata = new HashMap<>(Map.of("z", 1, "a", List.of(3)));
    CompletableFuture<Void> saving =
        scene.client(fake).async().saveMessage(Scene.message(1).withMetadata(metadata));
    metadata.put("z", 2);
    saving.join();
    List<String> sent =
        fake.bodies.stream()
            .map(each -> each.replaceAll(",\"deadlineMs\":\\d+", "").replace(",\"level\":1", ""))
            .toList();
    assertEquals(3, sent.size());
    assertEquals(1, new HashSet<>(sent).size());
    assertTrue(sent.get(0).contains("\"z\":1"));
    assertEquals(List.of("1", "", ""), fake.all("/level"));
    List<Integer> deadlines = fake.all("/deadlineMs").stream().map(Integer::valueOf).toList();
    assertTrue(deadlines.get(0) >= deadlines.get(1) && deadlines.get(1) >= deadlines.get(2));
  }

  /** Commands, also those that are unknown here, are numbered, by each client for itself. */
  @Test
  void commandsAreNumbered() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) ->
                type(request).equals("get-users")
                    ? refusal(request, "unknown-operation", "caller")
                    : ok(request));
    for (int times = 0; times < 2; times++) {
      Client client = scene.client(fake);
      client.saveMessage(Scene.message(1));
      client.getUser("u");
      client.deleteScope();
      assertThrows(CallerException.class, () -> client.call("get-users", Map.of()));
      client.saveMessage(Scene.message(2));
    }
    List<String> numbers = List.of("1", "", "", "2", "3");
    List<String> both = new ArrayList<>(numbers);
    both.addAll(numbers);
    assertEquals(both, fake.all("/n"));
    List<String> clients = fake.all("/client");
    assertEquals(3, new HashSet<>(clients).size());
    assertTrue(clients.get(0).matches("[0-9A-Z]{26}"));
    assertEquals(clients.get(0), clients.get(4));
  }

  /** A refused retry is sent again while nothing was sent after it. */
  @Test
  void refusedRetryIsSentAgain() throws Exception {
    AtomicInteger requests = new AtomicInteger();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              int number = requests.incrementAndGet();
              if (number == 1) {
                peer.close();
                return null;
              }
              return number < 4 ? refusal(request, "busy", "daemon") : ok(request);
            });
    scene.client(fake).saveMessage(Scene.message(1));
    assertEquals(4, fake.bodies.size());
  }

  /** A refused retry is not sent behind a later request: its outcome is unknown. */
  @Test
  void refusedRetryIsNotSentBehindLaterRequest() throws Exception {
    AtomicInteger requests = new AtomicInteger();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              int number = requests.incrementAndGet();
              if (number == 2) {
                peer.close();
              }
              if (number <= 2) {
                return null;
              }
              boolean isFirst = request.at("/payload/message/id").asText().equals("m1");
              return isFirst ? refusal(request, "busy", "daemon") : ok(request);
            });
    Client client = scene.client(fake);
    CompletableFuture<Void> first = client.async().saveMessage(Scene.message(1));
    CompletableFuture<Void> second = client.async().saveMessage(Scene.message(2));
    second.join();
    NoReplyException error = failureOf(NoReplyException.class, first);
    String problem = "a retry was refused, and other requests were sent after it";
    assertEquals(problem + ": whether the request took effect is unknown", error.getMessage());
    assertEquals(4, fake.bodies.size());
  }

  static <E extends Throwable> E failureOf(Class<E> type, CompletableFuture<?> future) {
    CompletionException error = assertThrows(CompletionException.class, future::join);
    return assertInstanceOf(type, error.getCause());
  }

  /** A result of another type is an error at once, also of what was sent again. */
  @Test
  void resultOfAnotherTypeIsAnError() throws Exception {
    AtomicInteger requests = new AtomicInteger();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              if (requests.incrementAndGet() > 1) {
                return ok(request, "text");
              }
              peer.close();
              return null;
            });
    Client client = scene.client(fake);
    InternalException error = assertThrows(InternalException.class, () -> client.getUser("u"));
    assertTrue(error.getMessage().startsWith("the daemon's result is not what"));
    assertEquals(2, fake.bodies.size());
  }

  /** A daemon that ends each connection is asked less and less often. */
  @Test
  void daemonThatEndsConnectionsIsAskedLessOften() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              peer.close();
              return null;
            });
    Client client = scene.client(fake.endpoint(), Duration.ofMillis(700));
    assertThrows(NoReplyException.class, client::ping);
    int connections = fake.connections.get(); // after 25, 50, 100, 200 and 400 ms
    assertTrue(connections > 1 && connections <= 6, connections + " connections");
  }

  /** A daemon that ends its side, and reads no more, is left at once. */
  @Test
  void daemonThatEndsItsSideIsLeftAtOnce() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              peer.channel().shutdownOutput();
              return null;
            });
    Client client = scene.client(fake);
    CompletableFuture<Void> saving =
        client.async().saveMessage(Scene.message(1, "x".repeat(6 * MEGABYTE)));
    Scene.waitUntil(() -> fake.connections.get() > 1);
    client.close();
    failureOf(NoReplyException.class, saving);
  }

  /** A first refusal is the outcome. */
  @Test
  void firstRefusalIsTheOutcome() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> refusal(request, "busy", "daemon"));
    Client client = scene.client(fake);
    BusyException error =
        assertThrows(BusyException.class, () -> client.saveMessage(Scene.message(1)));
    assertTrue(error.isRetryable());
    assertEquals(1, fake.bodies.size());
  }

  /** Maintenance is sent once. */
  @Test
  void maintenanceIsSentOnce() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              if (type(request).equals("ping")) {
                return pong(request);
              }
              peer.close();
              return null;
            });
    Client client = scene.client(fake);
    NoReplyException error = assertThrows(NoReplyException.class, client::deleteScope);
    assertTrue(error.getMessage().startsWith("the connection was lost: whether"));
    client.ping();
    assertEquals(List.of("delete-scope", "ping"), fake.all("/type"));
  }

  /** A command that is executed again has its own reply, not that of the one that was cancelled. */
  @Test
  void commandExecutedAgainHasItsOwnReply() throws Exception {
    List<JsonNode> held = new CopyOnWriteArrayList<>();
    AtomicReference<FakeDaemon.Peer> peers = new AtomicReference<>();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              peers.set(peer);
              if (type(request).equals("ping")) {
                return pong(request);
              }
              held.add(request);
              return null;
            });
    Client client = scene.client(fake);
    RequestOptions mine = RequestOptions.of().withRequestId("mine");
    CompletableFuture<Void> first = client.async(mine).saveMessage(Scene.message(1));
    client.ping();
    assertTrue(first.cancel(false));
    CompletableFuture<Void> second = client.async(mine).saveMessage(Scene.message(1));
    client.ping();
    assertEquals(2, held.size());
    peers.get().send(refusal(held.get(0), "busy", "daemon").toString());
    peers.get().send(ok(held.get(1)).toString());
    second.join();
    assertEquals(1, fake.connections.get());
  }

  /** What got no reply in time has an unknown outcome; a silent connection is given up. */
  @Test
  void whatGotNoReplyInTimeIsUnknown() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> null);
    Client client = scene.client(fake.endpoint(), Duration.ofMillis(50));
    NoReplyException error =
        assertThrows(NoReplyException.class, () -> client.saveMessage(Scene.message(1)));
    String unknown = ": whether the request took effect is unknown";
    assertEquals("no reply within 50 ms" + unknown, error.getMessage());
    RequestOptions patient = RequestOptions.of().withTimeout(Scene.LONG);
    CompletableFuture<Void> closing = client.async(patient).saveMessage(Scene.message(2));
    Scene.waitUntil(() -> fake.bodies.size() == 2);
    client.close();
    assertEquals(
        "the client was closed" + unknown, failureOf(NoReplyException.class, closing).getMessage());
    assertEquals(2, fake.connections.get());
  }

  /** A waiting query that is sent again waits for the rest of its time. */
  @Test
  void waitingQuerySentAgainWaitsLess() throws Exception {
    AtomicInteger requests = new AtomicInteger();
    Map<String, Object> page = Map.of("changes", List.of(), "cursor", "c", "more", false);
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              if (requests.incrementAndGet() > 1) {
                return ok(request, page);
              }
              CompletableFuture.delayedExecutor(30, java.util.concurrent.TimeUnit.MILLISECONDS)
                  .execute(() -> closeQuietly(peer));
              return null;
            });
    scene.client(fake).getChanges(GetChanges.of().withWaitMs(10_000));
    List<Integer> waits = fake.all("/payload/waitMs").stream().map(Integer::valueOf).toList();
    assertTrue(10_000 >= waits.get(0) && waits.get(0) > waits.get(1) && waits.get(1) > 0);
  }

  private static void closeQuietly(FakeDaemon.Peer peer) {
    try {
      peer.close();
    } catch (java.io.IOException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Waiting queries hold up nobody. */
  @Test
  void waitingQueriesHoldUpNobody() throws Exception {
    FakeDaemon fake =
        scene.fake((request, peer) -> type(request).equals("ping") ? pong(request) : null);
    Client client = scene.client(fake);
    GetChanges waiting = GetChanges.of().withWaitMs(60_000);
    List<CompletableFuture<ChangePage>> queries =
        IntStream.range(0, 1_100).mapToObj(number -> client.async().getChanges(waiting)).toList();
    client.ping();
    client.close();
    assertTrue(queries.stream().allMatch(CompletableFuture::isCompletedExceptionally));
  }

  /** A stopped daemon is waited for, and its silence is an error. */
  @Test
  void stoppedDaemonIsWaitedFor() throws Exception {
    TestDaemon daemon = scene.daemon();
    Client client = scene.client(daemon.dataDir);
    client.ping();
    daemon.signal("STOP");
    RequestOptions hasty = RequestOptions.of().withTimeout(Duration.ofMillis(100));
    assertThrows(NoReplyException.class, () -> client.with(hasty).ping());
    assertThrows(UnavailableException.class, () -> client.with(hasty).ping());
    daemon.signal("CONT");
    assertTrue(client.ping().pong());
  }

  /** What a later level adds to replies survives: codes, fields, values and operations. */
  @Test
  void whatLaterLevelAddsSurvives() throws Exception {
    Map<String, Object> token =
        Map.of("name", "a", "right", "dream", "createdAt", 1, "colour", "red");
    FakeDaemon fake =
        scene.fake(
            (request, peer) ->
                switch (type(request)) {
                  case "get-user" -> refusal(request, "moon-phase", "caller");
                  case "list-tokens" -> ok(request, List.of(token));
                  case "get-moon" -> ok(request, Map.of("full", true));
                  default -> refusal(request, "tide", "daemon");
                });
    Client client = scene.client(fake);
    BackscrollException phase = assertThrows(BackscrollException.class, () -> client.getUser("u"));
    assertEquals(CallerException.class, phase.getClass());
    assertEquals("moon-phase", phase.code());
    BackscrollException tide = assertThrows(BackscrollException.class, client::ping);
    assertEquals(DaemonException.class, tide.getClass());
    assertTrue(tide.isRetryable());
    AccessToken read = client.listTokens().get(0);
    assertEquals(Right.of("dream"), read.right());
    assertEquals(Map.of("colour", "red"), read.unknownFields());
    assertEquals(Map.of("full", true), client.call("get-moon", Map.of()));
  }

  /** What is no reply is an error of the daemon. */
  @Test
  void whatIsNoReplyIsAnErrorOfTheDaemon() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              peer.send("nonsense");
              return null;
            });
    Client client = scene.client(fake);
    InternalException error = assertThrows(InternalException.class, client::ping);
    assertEquals("the daemon sent an invalid reply", error.getMessage());
  }

  /**
   * After what is no reply, the outcome of each command that was sent is unknown; those that were
   * not are sent.
   */
  @Test
  void afterWhatIsNoReplyOutcomesAreUnknown() throws Exception {
    List<JsonNode> held = new CopyOnWriteArrayList<>();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              held.add(request);
              if (held.size() == 1_000) {
                peer.send("nonsense");
                for (JsonNode each : held.subList(1, 1_000)) {
                  peer.send(ok(each).toString());
                }
              }
              return held.size() > 1_000 ? ok(request) : null;
            });
    Client client = scene.client(fake);
    List<CompletableFuture<Void>> calls =
        IntStream.range(0, 1_001)
            .mapToObj(number -> client.async().saveMessage(Scene.message(number)))
            .toList();
    calls.get(1_000).join();
    for (CompletableFuture<Void> each : calls.subList(0, 1_000)) {
      NoReplyException error = failureOf(NoReplyException.class, each);
      assertEquals(
          "the daemon sent an invalid reply: whether the request took effect is unknown",
          error.getMessage());
    }
  }

  /** Details that are not as declared are an error all the same. */
  @Test
  void detailsThatAreNotAsDeclared() throws Exception {
    List<String> details =
        List.of("5", "\"text\"", "null", "{\"failures\": [null]}", "{\"failures\": \"text\"}");
    AtomicInteger next = new AtomicInteger();
    FakeDaemon fake =
        scene.fake(
            (request, peer) -> {
              ObjectNode reply = (ObjectNode) refusal(request, "invalid", "caller");
              JsonNode found = Vectors.parsed(details.get(next.getAndIncrement()));
              ((ObjectNode) reply.get("error")).set("details", found);
              return reply;
            });
    Client client = scene.client(fake);
    for (int times = 0; times < details.size(); times++) {
      InvalidException error = assertThrows(InvalidException.class, client::ping);
      assertTrue(error.failures().stream().allMatch(each -> each.index() == -1));
    }
  }

  /** A code decides on the class, whatever the fault is said to be. */
  @Test
  void codeDecidesOnTheClass() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> refusal(request, "forbidden", "daemon"));
    assertThrows(ForbiddenException.class, scene.client(fake)::ping);
    assertFalse(new DeleteScope().operation().isEmpty());
  }

  /** A waitMs that the daemon refuses is sent as it is, and its refusal is waited for. */
  @Test
  void waitMsThatTheDaemonRefuses() throws Exception {
    Client client = scene.client();
    for (long waitMs : new long[] {-20_000, 60_001, Long.MAX_VALUE}) {
      GetChanges query = GetChanges.of().withWaitMs(waitMs);
      InvalidException error = assertThrows(InvalidException.class, () -> client.getChanges(query));
      assertEquals("$.payload.waitMs", error.details().get("path"));
    }
  }

  /** A message is copied when it is made: its maps and lists do not change with their originals. */
  @Test
  void recordsAreCopies() {
    Map<String, Object> metadata = new HashMap<>(Map.of("a", 1));
    Message message = Scene.message(1).withMetadata(metadata);
    metadata.put("b", 2);
    assertEquals(Map.of("a", 1), message.metadata());
  }
}
