package backscroll;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.NotFoundException;
import backscroll.errors.SupersededException;
import backscroll.records.LogEntry;
import backscroll.records.LogPage;
import backscroll.records.MessageUpdates;
import backscroll.requests.GetLog;
import backscroll.requests.GetMessagePage;
import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Real daemons and lost connections: nothing is lost, nothing takes effect twice, and nothing
 * overtakes what was sent before.
 */
class LossesTest {
  private static final int MANY = 10_000;
  private static final int REFUSED_EVERY = 7;
  private static final int SEEDS = Scene.IS_LONG ? 100 : 3;
  private static final int PAIRS = 20;
  private static final int KILLS = 3;
  private static final Duration VERY_LONG = Duration.ofSeconds(80);

  @RegisterExtension final Scene scene = new Scene();

  /**
   * Save messages without waiting, and among that update one that is never there. A command that
   * was refused, the reply lost, may be superseded when it is sent again.
   */
  private static List<String> pipelined(Client client, Runnable settled) {
    List<CompletableFuture<String>> outcomes = new ArrayList<>();
    for (int number = 0; number < MANY; number++) {
      CompletableFuture<Void> call =
          number % REFUSED_EVERY == 0
              ? client.async().updateMessage("none", MessageUpdates.of().withContent("x"))
              : client.async().saveMessage(Scene.message(number));
      outcomes.add(
          call.handle(
              (result, error) -> {
                settled.run();
                return outcome(error);
              }));
    }
    return outcomes.stream().map(CompletableFuture::join).toList();
  }

  private static String outcome(Throwable error) {
    if (error == null) {
      return "saved";
    }
    boolean isRefused = error instanceof NotFoundException || error instanceof SupersededException;
    return isRefused ? "refused" : error.toString();
  }

  /**
   * Each command has its outcome, and an observer reads in the log that each save took effect once,
   * in the order of the calls.
   */
  private static void assertComplete(List<String> outcomes, Client observer) {
    List<String> expected =
        IntStream.range(0, MANY)
            .mapToObj(number -> number % REFUSED_EVERY == 0 ? "refused" : "saved")
            .toList();
    assertEquals(expected, outcomes);
    List<String> executed = new ArrayList<>();
    LogPage page;
    do {
      long fromSeq = executed.size() + 1;
      page = observer.getLog(GetLog.of().withFromSeq(fromSeq).withLimit(500));
      page.entries().stream().map(LossesTest::messageId).forEach(executed::add);
    } while (executed.size() < page.lastSeq());
    List<String> saved =
        IntStream.range(0, MANY)
            .filter(number -> number % REFUSED_EVERY != 0)
            .mapToObj(number -> "m" + number)
            .toList();
    assertEquals(saved, executed);
  }

  private static String messageId(LogEntry entry) {
    Map<?, ?> message = (Map<?, ?>) ((Map<?, ?>) entry.payload()).get("message");
    return (String) message.get("id");
  }

  /** Counts connections. */
  private static final class Connected implements ConnectionListener {
    private final AtomicInteger count = new AtomicInteger();

    @Override
    public void connected() {
      count.incrementAndGet();
    }
  }

  /** 10,000 commands over three kills take effect once and in order, over ipc and tcp. */
  @ParameterizedTest
  @ValueSource(strings = {"ipc", "tcp"})
  void commandsOverThreeKillsTakeEffectOnceAndInOrder(String carrier) throws Exception {
    Stream<String> small = Stream.of("--batch-requests", "100"); // replies in small portions
    Stream<String> flags = carrier.equals("tcp") ? Stream.of(Scene.TCP) : Stream.of();
    TestDaemon daemon = scene.daemon(Stream.concat(small, flags).toArray(String[]::new));
    Connected connected = new Connected();
    Client client =
        scene.closed(
            Client.builder()
                .dataDir(daemon.dataDir)
                .timeout(VERY_LONG)
                .connectionListener(connected)
                .connect());
    AtomicInteger settled = new AtomicInteger();
    CompletableFuture<Integer> killing =
        CompletableFuture.supplyAsync(
            () -> {
              for (int kill = 1; kill <= KILLS; kill++) {
                restartAfter(daemon, settled, kill * MANY / 5);
              }
              return settled.get();
            });
    List<String> outcomes = pipelined(client, settled::incrementAndGet);
    assertTrue(killing.join() < MANY, "the last kill came when everything was settled");
    assertEquals(1 + KILLS, connected.count.get());
    assertComplete(outcomes, scene.client(daemon.dataDir));
  }

  private static void restartAfter(TestDaemon daemon, AtomicInteger settled, int count) {
    try {
      Scene.waitUntil(() -> settled.get() >= count);
      daemon.restart();
    } catch (Exception e) {
      throw new CompletionException(e);
    }
  }

  static Stream<Integer> seeds() {
    return IntStream.range(0, SEEDS).boxed();
  }

  /** 10,000 commands over connections that are cut and delayed take effect once and in order. */
  @ParameterizedTest(name = "seed {0}")
  @MethodSource("seeds")
  void commandsOverBadConnectionsTakeEffectOnceAndInOrder(int seed) throws Exception {
    TestDaemon daemon = scene.daemon();
    String listen = "ipc://" + scene.directory().resolve("proxy");
    String python = System.getenv().getOrDefault("PYTHON", "python3");
    Process proxy = proxy(python, listen, daemon.endpoint(), seed);
    scene.closed(proxy::destroy);
    String ready = proxy.inputReader().readLine();
    String endpoint = Vectors.parsed(ready).get("endpoint").textValue();
    Client client = scene.client(endpoint, VERY_LONG);
    List<String> outcomes = pipelined(client, () -> {});
    client.close();
    proxy.getOutputStream().close();
    assertTrue(proxy.inputReader().readLine().contains("faults"));
    assertComplete(outcomes, scene.client(daemon.dataDir));
  }

  private static Process proxy(String python, String listen, String target, int seed)
      throws IOException {
    return new ProcessBuilder(
            python, "-m", "tests.support.proxy", listen, target, "--seed", String.valueOf(seed))
        .directory(new File("../.."))
        .redirectError(ProcessBuilder.Redirect.INHERIT)
        .start();
  }

  private static final Pattern NUMBERS = Pattern.compile(",\"client\":\"\\w{26}\",\"n\":\\d+");

  /**
   * An update that was refused, the reply unread, never wins over a later save when it is sent
   * again. Without {@code client} and {@code n}, blanked out here, it would.
   */
  @ParameterizedTest(name = "numbered: {0}")
  @ValueSource(booleans = {true, false})
  void refusedUpdateNeverWinsOverLaterSave(boolean isNumbered) throws Exception {
    TestDaemon daemon = scene.daemon();
    Path path = scene.directory().resolve("relay");
    Relay relay = scene.closed(Relay.ipc(path, daemon.endpoint()));
    if (!isNumbered) {
      relay.sends =
          text -> NUMBERS.matcher(text).replaceAll(found -> " ".repeat(found.group().length()));
    }
    Client client = scene.client("ipc://" + path, Scene.LONG);
    Client observer = scene.client(daemon.dataDir);
    client.ping();
    relay.gets = text -> null;
    List<CompletableFuture<Void>> updates = new ArrayList<>();
    List<CompletableFuture<Void>> saves = new ArrayList<>();
    for (int number = 0; number < PAIRS; number++) {
      MessageUpdates old = MessageUpdates.of().withContent("old");
      updates.add(client.async().updateMessage("m" + number, old));
      saves.add(client.async().saveMessage(Scene.message(number, "new")));
    }
    GetMessagePage all = GetMessagePage.of("r1");
    Scene.waitUntil(() -> observer.call(all).messages().size() == PAIRS);
    relay.gets = text -> text;
    relay.cut();
    saves.forEach(CompletableFuture::join);
    List<String> outcomes =
        updates.stream().map(each -> each.handle((done, error) -> nameOf(error)).join()).toList();
    String expected = isNumbered ? "SupersededException" : "done";
    assertEquals(Collections.nCopies(PAIRS, expected), outcomes);
    List<String> contents =
        observer.call(all).messages().stream().map(each -> each.content()).toList();
    assertEquals(Collections.nCopies(PAIRS, isNumbered ? "new" : "old"), contents);
  }

  private static String nameOf(Throwable error) {
    return error == null ? "done" : error.getClass().getSimpleName();
  }
}
