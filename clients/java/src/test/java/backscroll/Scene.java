package backscroll;

import backscroll.records.Message;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.Comparator;
import java.util.Deque;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.Stream;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** What tests share: directories, daemons and clients, which end with the test that made them. */
final class Scene implements AfterEachCallback {
  /** Enough for whatever is to succeed. */
  static final Duration LONG = Duration.ofSeconds(20);

  /** Whether the long forms of tests run. */
  static final boolean IS_LONG = System.getenv("LONG") != null;

  /** The command that starts daemons: the environment variable BACKSCROLL, or from the PATH. */
  static final String BACKSCROLL = System.getenv().getOrDefault("BACKSCROLL", "backscroll");

  static final String[] TCP = {"--endpoint", "tcp://127.0.0.1:*"};

  /** Tests lose connections on purpose. */
  private static final Logger LOGGER = Logger.getLogger("backscroll");

  static {
    LOGGER.setLevel(Level.OFF);
  }

  private final Deque<AutoCloseable> resources = new ArrayDeque<>();

  /** Closes something after the test, before what was made earlier. */
  synchronized <T extends AutoCloseable> T closed(T resource) {
    resources.push(resource);
    return resource;
  }

  @Override
  public synchronized void afterEach(ExtensionContext context) throws Exception {
    while (!resources.isEmpty()) {
      resources.pop().close();
    }
  }

  Path directory() throws IOException {
    Path directory = Files.createTempDirectory("bs-java-");
    closed(() -> delete(directory));
    return directory;
  }

  private static void delete(Path directory) throws IOException {
    try (Stream<Path> files = Files.walk(directory)) {
      for (Path each : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(each);
      }
    }
  }

  TestDaemon daemon(String... flags) throws IOException {
    TestDaemon daemon = closed(new TestDaemon(directory(), flags));
    daemon.start();
    return daemon;
  }

  FakeDaemon fake(FakeDaemon.Handler handler) throws IOException {
    return closed(FakeDaemon.on(directory().resolve("socket"), handler));
  }

  FakeDaemon fakeOnPort(int port, FakeDaemon.Handler handler) throws IOException {
    return closed(FakeDaemon.onPort(port, handler));
  }

  /** A daemon that many tests use, each in a scope of its own; it ends with this process. */
  private static final class Shared {
    private static final TestDaemon DAEMON = started();
    private static final AtomicInteger SCOPES = new AtomicInteger();

    private static TestDaemon started() {
      try {
        Path directory = Files.createTempDirectory("bs-java-");
        TestDaemon daemon = new TestDaemon(directory);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> remove(daemon)));
        daemon.start();
        return daemon;
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    private static void remove(TestDaemon daemon) {
      try {
        daemon.kill();
        delete(daemon.dataDir);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  /** A client of a daemon that is not killed, in a scope that nobody else uses. */
  Client client() {
    return closed(
        Client.builder()
            .dataDir(Shared.DAEMON.dataDir)
            .scope("scope-" + Shared.SCOPES.incrementAndGet())
            .timeout(LONG)
            .connect());
  }

  /** A client of a data directory with plenty of time. */
  Client client(Path dataDir) {
    return closed(Client.builder().dataDir(dataDir).timeout(LONG).connect());
  }

  Client client(FakeDaemon fake) {
    return client(fake.endpoint(), LONG);
  }

  Client client(String endpoint, Duration timeout) {
    return closed(Client.builder().endpoint(endpoint).timeout(timeout).connect());
  }

  static Message message(int number) {
    return message(number, String.valueOf(number));
  }

  static Message message(int number, String content) {
    Instant timestamp = Instant.ofEpochMilli(1_767_225_600_000L + number);
    return Message.of("m" + number, "r1", content, timestamp).withSenderId("ada");
  }

  /** Waits for a condition. */
  static void waitUntil(Callable<Boolean> condition) throws Exception {
    long deadline = System.nanoTime() + LONG.toNanos();
    while (!condition.call()) {
      if (System.nanoTime() - deadline > 0) {
        throw new AssertionError("waited in vain");
      }
      Thread.sleep(5);
    }
  }

  /** What a command of {@code backscroll} prints, its last line. */
  static String backscroll(String... words) throws IOException, InterruptedException {
    String[] command =
        Stream.concat(Stream.of(BACKSCROLL), Stream.of(words)).toArray(String[]::new);
    Process process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    String last = process.inputReader().lines().reduce("", (before, line) -> line);
    if (process.waitFor() != 0) {
      throw new IOException("it ended with " + process.exitValue());
    }
    return last;
  }
}
