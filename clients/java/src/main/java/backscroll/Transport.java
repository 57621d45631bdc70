package backscroll;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.nio.channels.Selector;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * A connection to a daemon, made anew when it is lost. Where the daemon is, is looked up for each
 * connection.
 *
 * <p>Over tcp the daemon first proves with {@code hello} that it knows the token; until then
 * neither token nor requests are sent. Times are those of {@code nanoTime}.
 */
final class Transport {
  /** The delay before the next connection; it doubles up to the second until a reply comes. */
  private static final long RECONNECT_DELAY = TimeUnit.MILLISECONDS.toNanos(25);

  private static final long RECONNECT_DELAY_MAX = TimeUnit.SECONDS.toNanos(1);

  /** How long a connection may take until requests can be sent. */
  private static final long CONNECT_TIMEOUT_MS = 2_000;

  /** What happens to a transport. */
  interface Events {
    void connected();

    void reply(byte[] body);

    /** There is no connection, or none any more; the problem says why. */
    void lost(BackscrollException problem);
  }

  private final Selector selector;
  private final Supplier<Address> find;
  private final Events events;
  private ZmtpConnection connection;
  private String token;
  private boolean isConnected;
  private boolean isActive;
  private long delay = RECONNECT_DELAY;

  /** When to connect, or to give up connecting; null if neither is to be done. */
  private Long reconnectAt;

  private Long connectUntil;

  Transport(Selector selector, Supplier<Address> find, Events events) {
    this.selector = selector;
    this.find = find;
    this.events = events;
  }

  boolean isConnected() {
    return isConnected;
  }

  /** The token to send with each request; null over ipc. */
  String token() {
    return token;
  }

  /** When the latest bytes arrived on the current connection. */
  long receivedAt() {
    return connection == null ? Long.MAX_VALUE : connection.receivedAt();
  }

  /** Says whether there are calls: while there are, a connection that is lost is made again. */
  void setActive(boolean active) {
    if (isActive == active) {
      return;
    }
    isActive = active;
    if (!active) {
      reconnectAt = null;
    } else if (connection == null) {
      connect();
    }
  }

  /** When {@link #tick} is to be called; null if no time matters. */
  Long nextTick() {
    return reconnectAt == null ? connectUntil : reconnectAt;
  }

  void tick(long now) {
    if (reconnectAt != null && now - reconnectAt >= 0) {
      reconnectAt = null;
      connect();
    } else if (connectUntil != null && now - connectUntil >= 0) {
      drop("it did not let the client connect within " + CONNECT_TIMEOUT_MS + " ms");
    }
  }

  void send(byte[][] body) {
    connection.send(body);
  }

  void flush() {
    if (connection != null) {
      connection.flush();
    }
  }

  /** Gives up the current connection. */
  void drop(String reason) {
    if (connection != null) {
      connection.close(reason);
    }
  }

  void close() {
    setActive(false);
    drop(PendingCalls.CLOSED);
  }

  private void connect() {
    try {
      Address address = find.get();
      SocketAddress target = Address.target(address.endpoint());
      connection = open(target, new Link(address));
      connectUntil = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(CONNECT_TIMEOUT_MS);
    } catch (BackscrollException e) {
      lost(e);
    }
  }

  private ZmtpConnection open(SocketAddress target, Link link) {
    try {
      return new ZmtpConnection(selector, resolved(target), link);
    } catch (IOException e) {
      throw link.unreachable(ZmtpConnection.reasonOf(e));
    }
  }

  private static SocketAddress resolved(SocketAddress target) throws IOException {
    if (!(target instanceof InetSocketAddress named)) {
      return target;
    }
    InetSocketAddress found = new InetSocketAddress(named.getHostString(), named.getPort());
    if (found.isUnresolved()) {
      throw new IOException("there is no host " + named.getHostString());
    }
    return found;
  }

  private void connected(String token) {
    connectUntil = null;
    isConnected = true;
    this.token = token;
    events.connected();
  }

  private void lost(BackscrollException problem) {
    connection = null;
    connectUntil = null;
    isConnected = false;
    events.lost(problem);
    if (isActive) {
      reconnectAt = System.nanoTime() + delay;
      delay = Math.min(2 * delay, RECONNECT_DELAY_MAX);
    }
  }

  /** What happens on one connection. */
  private final class Link implements ZmtpConnection.Events {
    private final Address address;
    private Greeting greeting;
    private BackscrollException problem;

    Link(Address address) {
      this.address = address;
    }

    @Override
    public void ready() {
      if (address.token() == null) {
        connected(null);
      } else {
        greeting = new Greeting(address);
        connection.send(greeting.request());
      }
    }

    @Override
    public void message(byte[] body) {
      if (isConnected) {
        delay = RECONNECT_DELAY; // and not before: a daemon may accept connections only to end them
        events.reply(body);
        return;
      }
      problem = greeting.problemWith(body);
      if (problem == null) {
        connected(address.token());
      } else {
        connection.close(problem.getMessage());
      }
    }

    @Override
    public void closed(String reason) {
      lost(problem == null ? unreachable(reason) : problem);
    }

    private BackscrollException unreachable(String reason) {
      return Errors.unavailable("no daemon answers at " + address.endpoint() + ": " + reason);
    }
  }
}
