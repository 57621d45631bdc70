package backscroll;

import backscroll.records.HealthReport;
import backscroll.requests.OperationTable;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/** Opens a data directory: a client of the daemon that serves it, which is started if none does. */
final class DaemonStarter {
  private static final long PAUSE_MS = 50;
  private static final long PAUSE_MS_MAX = 1_000;
  private static final long LOOK_MS = 10;

  /** Longer than a connection may take. */
  private static final long PROBE_MS = 5_000;

  /** The exit code of a daemon whose directory another one holds. */
  private static final int HELD = 3;

  private static final long LOG_BYTES_MAX = 8L * 1024 * 1024;
  private static final int QUOTED_CHARS_MAX = 2_000;

  /**
   * The daemons that end with this process, which they notice by the end of their standard input:
   * it must not be closed because nobody refers to it any more.
   */
  private static final Set<Process> CHILDREN = ConcurrentHashMap.newKeySet();

  private final ClientBuilder options;
  private final Path dataDir;
  private final Address.Location location;
  private final DaemonProgram program;
  private final Path log;

  DaemonStarter(ClientBuilder options, Path dataDir, String token) {
    this.options = options;
    this.dataDir = dataDir;
    location = new Address.Location(dataDir, null, token);
    program = DaemonProgram.find(options.command);
    log = options.logFile == null ? dataDir.resolve("daemon.log") : options.logFile;
  }

  Client open() {
    Client client = new Client(options, location);
    try {
      startUnlessServed();
      checkLevel(client);
      return client;
    } catch (InterruptedException e) {
      client.close();
      Thread.currentThread().interrupt();
      throw Errors.unavailable("the thread was interrupted while a daemon was started");
    } catch (RuntimeException e) {
      client.close();
      throw e;
    }
  }

  private void startUnlessServed() throws InterruptedException {
    long deadline = System.nanoTime() + options.startTimeout.toNanos();
    long pauseMs = PAUSE_MS;
    while (true) {
      BackscrollException problem = problem();
      if (problem == null) {
        return;
      }
      if (problem instanceof CallerException) {
        throw problem.atCaller();
      }
      if (System.nanoTime() - deadline > 0) {
        throw Errors.unavailable(
            "no daemon served %s within %d ms: %s; the log of one that was started is %s"
                .formatted(dataDir, options.startTimeout.toMillis(), problem.getMessage(), log));
      }
      long logFrom = openLog();
      OptionalInt code = readyOrEnded(start(), deadline);
      if (code.isEmpty()) {
        continue;
      }
      if (code.getAsInt() != HELD) {
        throw ended(code.getAsInt(), logFrom);
      }
      Thread.sleep(pauseMs); // another one is starting or stopping there
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
    }
  }

  /**
   * Why no daemon serves the directory; null if one does. Its address may be that of a daemon that
   * was killed, and another program, or another directory's daemon, may have its port: so over tcp
   * it has to prove who it is.
   */
  private BackscrollException problem() throws InterruptedException {
    Probe probe = new Probe();
    EventLoop loop = new EventLoop(() -> Address.find(location), probe);
    try {
      Call.Envelope envelope = new Call.Envelope(PROBE_MS, null, null, null);
      loop.submit(new Call("ping", Map.of(), envelope, System.nanoTime(), probe));
      return probe.result.get().orElse(null);
    } catch (ExecutionException e) {
      throw new IllegalStateException(e); // it is never completed so
    } finally {
      loop.close();
    }
  }

  /** Whether the first connection succeeds. */
  private static final class Probe implements EventLoop.Events, Call.Outcome {
    private final CompletableFuture<Optional<BackscrollException>> result =
        new CompletableFuture<>();

    @Override
    public void connected() {
      result.complete(Optional.empty());
    }

    @Override
    public void lost(BackscrollException problem) {
      result.complete(Optional.of(problem));
    }

    @Override
    public void failed(Throwable problem) {
      result.complete(Optional.of(Errors.internal(problem.toString())));
    }

    @Override
    public void settled(Call call, Answer<?> answer, BackscrollException error) {
      result.complete(Optional.ofNullable(error));
    }
  }

  private Process start() {
    Path file =
        DaemonProgram.file(program.command().get(0))
            .orElseThrow(() -> cannotStart("there is no program " + program.command().get(0)));
    List<String> command = new ArrayList<>();
    if (!options.exitWithParent) {
      // In a session of its own it does not get the signals of this process's terminal.
      DaemonProgram.file("setsid").ifPresent(each -> command.add(each.toString()));
    }
    command.add(file.toString());
    command.addAll(program.command().subList(1, program.command().size()));
    command.addAll(List.of("serve", "--data-dir", dataDir.toString()));
    if (options.exitWithParent) {
      command.add("--exit-with-parent");
    }
    command.addAll(options.flags);
    try {
      ProcessBuilder builder = new ProcessBuilder(command);
      builder.redirectError(ProcessBuilder.Redirect.appendTo(log.toFile()));
      Process process = builder.start();
      if (options.exitWithParent) {
        CHILDREN.add(process);
        process.onExit().thenAccept(CHILDREN::remove);
      } else {
        process.getOutputStream().close();
      }
      return process;
    } catch (IOException e) {
      throw cannotStart(e.getMessage());
    }
  }

  private BackscrollException cannotStart(String problem) {
    return Errors.unavailable("the daemon cannot be started: " + problem + "; " + program.advice());
  }

  /** Makes the data directory and the log; returns how many bytes the log has of other daemons. */
  private long openLog() {
    String where = "no daemon can be started in " + dataDir;
    try {
      Files.createDirectories(dataDir);
    } catch (IOException e) {
      throw Errors.unusable(where + ": " + e + "; name a directory that this user can write");
    }
    try {
      createPrivately(log);
      try (RandomAccessFile file = new RandomAccessFile(log.toFile(), "rw")) {
        if (file.length() > LOG_BYTES_MAX) {
          file.setLength(0);
        }
        return file.length();
      }
    } catch (IOException e) {
      throw Errors.unusable(
          where + ", because its log cannot be written: " + e + "; name another file in `logFile`");
    }
  }

  private static void createPrivately(Path file) throws IOException {
    try {
      Files.createFile(
          file, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
    } catch (FileAlreadyExistsException e) {
      // It is written on.
    } catch (UnsupportedOperationException e) {
      // There are no such permissions here.
    }
  }

  /** Waits for the line that a daemon prints when it is ready; its exit code if it ended before. */
  private OptionalInt readyOrEnded(Process daemon, long deadline) throws InterruptedException {
    boolean isReady = false;
    try {
      while (!isReady) {
        isReady = daemon.getInputStream().available() > 0;
        if (!isReady && daemon.waitFor(LOOK_MS, TimeUnit.MILLISECONDS)) {
          return OptionalInt.of(daemon.exitValue());
        }
        if (!isReady && System.nanoTime() - deadline > 0) {
          throw Errors.unavailable(
              "the daemon was not ready in time, and was stopped; its log is " + log);
        }
      }
      daemon.getInputStream().close();
      return OptionalInt.empty();
    } catch (IOException e) {
      throw cannotStart(e.getMessage());
    } finally {
      if (!isReady) {
        daemon.destroy();
      }
    }
  }

  private BackscrollException ended(int code, long logFrom) {
    String said = logged(logFrom);
    return Errors.unusable(
        "the daemon (%s) ended with exit code %d before it was ready: %s"
            .formatted(program.command().get(0), code, said));
  }

  /** The end of what a daemon wrote to its log. */
  private String logged(long from) {
    try (RandomAccessFile file = new RandomAccessFile(log.toFile(), "r")) {
      long begin = Math.max(from, file.length() - QUOTED_CHARS_MAX);
      file.seek(begin);
      byte[] bytes = new byte[(int) (file.length() - begin)];
      file.readFully(bytes);
      String text = new String(bytes, StandardCharsets.UTF_8).stripTrailing();
      return text.isEmpty() ? "it wrote nothing to its log" : text;
    } catch (IOException e) {
      return "its log cannot be read";
    }
  }

  /** Says in words that a daemon's level of the protocol does not fit. */
  private void checkLevel(Client client) {
    HealthReport health = client.health();
    int level = OperationTable.LEVEL;
    if (health.level() == level || health.level() > level && serves(client, level)) {
      return;
    }
    boolean isLater = health.level() > level;
    String older = isLater ? "this client" : "the daemon";
    String update = isLater ? "this package" : "backscroll, and stop that daemon";
    throw Errors.unusable(
        ("the daemon that serves %s (backscroll %s) speaks level %d of the protocol, and this client"
                + " was made for level %d: %s is too old; update %s")
            .formatted(dataDir, health.version(), health.level(), level, older, update));
  }

  private static boolean serves(Client client, int level) {
    Object lowest = client.describe().get("lowestCompatibleLevel");
    return !(lowest instanceof Number number) || number.intValue() <= level;
  }
}
