package backscroll;

import backscroll.requests.Limits;
import java.lang.System.Logger;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.function.Supplier;

/**
 * How to find a daemon or start one, and what holds for all requests of a client. It ends with
 * {@link #open}, which starts a daemon if there is none, or with {@link #connect}, which does not.
 */
public final class ClientBuilder {
  private static final Duration START_TIMEOUT = Duration.ofSeconds(30);
  static final Duration TIMEOUT_MAX = Duration.ofMillis(Integer.MAX_VALUE);

  String scope = Call.DEFAULT_SCOPE;
  Duration timeout = Client.TIMEOUT;
  ConnectionListener listener = new ConnectionListener() {};
  Logger logger = System.getLogger("backscroll");
  Supplier<String> traceparent = () -> null;
  List<String> command;
  List<String> flags = List.of();
  boolean exitWithParent;
  Path logFile;
  Duration startTimeout = START_TIMEOUT;
  private Path dataDir;
  private String endpoint;
  private String token;

  ClientBuilder() {}

  /**
   * The data directory of a daemon to connect to. Where neither this nor an endpoint is given, it
   * is the one in the environment variable {@code BACKSCROLL_DATA_DIR}, or the platform's default.
   *
   * @param dataDir the directory
   * @return this
   */
  public ClientBuilder dataDir(Path dataDir) {
    this.dataDir = dataDir;
    return this;
  }

  /**
   * The address of a daemon to connect to.
   *
   * @param endpoint the address, such as {@code ipc:///run/chat/backscroll.sock} or {@code
   *     tcp://127.0.0.1:5555}
   * @return this
   */
  public ClientBuilder endpoint(String endpoint) {
    this.endpoint = endpoint;
    return this;
  }

  /**
   * The token for tcp; otherwise the one in {@code BACKSCROLL_TOKEN}, or in the data directory.
   *
   * @param token the token
   * @return this
   */
  public ClientBuilder token(String token) {
    this.token = token;
    return this;
  }

  /**
   * The account whose data it is; {@code default} if left out.
   *
   * @param scope the name of the scope, 1 to 128 bytes
   * @return this
   */
  public ClientBuilder scope(String scope) {
    this.scope = Call.checkedText("a scope", scope, Limits.SCOPE_BYTES);
    return this;
  }

  /**
   * How long a request waits for its reply: 5 seconds if left out. The daemon does not start it
   * later than that.
   *
   * @param timeout the time, to the millisecond
   * @return this
   */
  public ClientBuilder timeout(Duration timeout) {
    millis("timeout", timeout);
    this.timeout = timeout;
    return this;
  }

  /**
   * What hears of connections.
   *
   * @param listener the listener
   * @return this
   */
  public ClientBuilder connectionListener(ConnectionListener listener) {
    this.listener = Objects.requireNonNull(listener, "listener");
    return this;
  }

  /**
   * Where the client writes what happens: {@code System.getLogger("backscroll")} if left out. There
   * is a line for each request that has its outcome, and for each connection: a warning if the
   * daemon was at fault, or when the connection is lost, otherwise at the level DEBUG. Payloads,
   * results and tokens are never written.
   *
   * @param logger the logger
   * @return this
   */
  public ClientBuilder logger(Logger logger) {
    this.logger = Objects.requireNonNull(logger, "logger");
    return this;
  }

  /**
   * The W3C trace context of a request that has none of its own, such as that of the active span.
   *
   * @param traceparent gives the trace context, or null
   * @return this
   */
  public ClientBuilder traceparent(Supplier<String> traceparent) {
    this.traceparent = Objects.requireNonNull(traceparent, "traceparent");
    return this;
  }

  /**
   * For {@link #open}: the program that starts a daemon, and its first arguments. If left out, that
   * of the sidecar in the directory that the system property {@code backscroll.sidecar} names, or
   * else {@code backscroll} on the PATH.
   *
   * @param command the program and its arguments
   * @return this
   */
  public ClientBuilder command(String... command) {
    if (command.length == 0) {
      throw Errors.invalid("command is a program and its arguments, and names no program");
    }
    this.command = List.of(command);
    return this;
  }

  /**
   * For {@link #open}: further flags of {@code backscroll serve}.
   *
   * @param flags the flags
   * @return this
   */
  public ClientBuilder flags(String... flags) {
    this.flags = List.of(flags);
    return this;
  }

  /**
   * For {@link #open}: let a daemon that is started end with this process; otherwise it goes on,
   * and others may use it.
   *
   * @param exitWithParent true if it is to end; false if left out
   * @return this
   */
  public ClientBuilder exitWithParent(boolean exitWithParent) {
    this.exitWithParent = exitWithParent;
    return this;
  }

  /**
   * For {@link #open}: the file for the log of a daemon that is started; {@code daemon.log} in the
   * data directory if left out.
   *
   * @param logFile the file
   * @return this
   */
  public ClientBuilder logFile(Path logFile) {
    this.logFile = logFile;
    return this;
  }

  /**
   * For {@link #open}: how long to wait until a daemon serves; 30 seconds if left out.
   *
   * @param startTimeout the time, to the millisecond
   * @return this
   */
  public ClientBuilder startTimeout(Duration startTimeout) {
    millis("startTimeout", startTimeout);
    this.startTimeout = startTimeout;
    return this;
  }

  /**
   * A client of a daemon that runs, or will run: whether one answers, the first request shows.
   *
   * @return the client
   * @throws backscroll.errors.InvalidException if the options cannot be used
   */
  public Client connect() {
    if (endpoint != null) {
      Address.target(endpoint);
    }
    return new Client(this, new Address.Location(dataDir, endpoint, token));
  }

  /**
   * A client of the daemon that serves a data directory; starts one if none does. When two programs
   * open a directory at once, both get clients of the same daemon.
   *
   * <p>The daemon that it starts goes on when this process ends, except with {@link
   * #exitWithParent}. To stop it, send it SIGTERM: {@code
   * ProcessHandle.of(client.health().pid()).get().destroy()}.
   *
   * @param dataDir the data directory, which need not be there
   * @return the client
   * @throws backscroll.errors.UnavailableException if no daemon starts, as in a directory that
   *     cannot be written, or if it speaks a level of the protocol that does not fit
   * @throws backscroll.errors.UnauthenticatedException if there is no token for it
   * @throws backscroll.errors.InvalidException if the options cannot be used
   */
  public Client open(Path dataDir) {
    if (endpoint != null || this.dataDir != null) {
      throw Errors.invalid("open gets its data directory as an argument, and takes no endpoint");
    }
    return new DaemonStarter(this, dataDir.toAbsolutePath(), token).open();
  }

  /** A time in whole milliseconds; throws if it is none that a request can wait. */
  static long millis(String name, Duration time) {
    if (time.isNegative() || time.compareTo(TIMEOUT_MAX) > 0) {
      throw Errors.invalid(name + " is a time of up to 24 days, not " + time);
    }
    return time.plusNanos(999_999).toMillis();
  }
}
