package backscroll;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.UnaryOperator;

/**
 * Between a client and a daemon: the test decides what is passed on, and when the connection is
 * lost. Bytes are text with a character for each.
 */
final class Relay implements AutoCloseable {
  /** Changes what the client sends, and what it gets; null passes nothing on. */
  volatile UnaryOperator<String> sends = UnaryOperator.identity();

  volatile UnaryOperator<String> gets = UnaryOperator.identity();
  private final ServerSocketChannel server;
  private final SocketAddress target;
  private final Set<SocketChannel> channels = ConcurrentHashMap.newKeySet();

  private Relay(ServerSocketChannel server, SocketAddress listen, SocketAddress target)
      throws IOException {
    this.server = server;
    this.target = target;
    server.bind(listen);
    begin(this::accept);
  }

  static Relay ipc(Path path, String endpoint) throws IOException {
    return new Relay(
        ServerSocketChannel.open(StandardProtocolFamily.UNIX),
        UnixDomainSocketAddress.of(path),
        Address.target(endpoint));
  }

  static Relay tcp(String endpoint) throws IOException {
    int port = Integer.parseInt(Address.portOf(endpoint));
    return new Relay(
        ServerSocketChannel.open(),
        new InetSocketAddress("127.0.0.1", 0),
        new InetSocketAddress("127.0.0.1", port));
  }

  int port() throws IOException {
    return ((InetSocketAddress) server.getLocalAddress()).getPort();
  }

  /** Cuts all connections. */
  void cut() throws IOException {
    for (SocketChannel each : channels) {
      each.close();
    }
  }

  @Override
  public void close() throws IOException {
    server.close();
    cut();
  }

  private static void begin(Runnable work) {
    Thread thread = new Thread(work, "relay");
    thread.setDaemon(true);
    thread.start();
  }

  private void accept() {
    try {
      while (true) {
        SocketChannel client = server.accept();
        SocketChannel daemon = connected();
        if (daemon == null) {
          client.close();
          continue;
        }
        channels.add(client);
        channels.add(daemon);
        begin(() -> pass(client, daemon, text -> sends.apply(text)));
        begin(() -> pass(daemon, client, text -> gets.apply(text)));
      }
    } catch (IOException e) {
      // it was closed
    }
  }

  private SocketChannel connected() {
    try {
      return SocketChannel.open(target);
    } catch (IOException e) {
      return null;
    }
  }

  private static void pass(SocketChannel from, SocketChannel to, UnaryOperator<String> change) {
    ByteBuffer buffer = ByteBuffer.allocate(256 * 1024);
    try (from;
        to) {
      while (from.read(buffer.clear()) >= 0) {
        String text = new String(buffer.array(), 0, buffer.position(), StandardCharsets.ISO_8859_1);
        String changed = change.apply(text);
        if (changed != null) {
          ByteBuffer out = ByteBuffer.wrap(changed.getBytes(StandardCharsets.ISO_8859_1));
          while (out.hasRemaining()) {
            to.write(out);
          }
        }
      }
    } catch (IOException e) {
      // one end is the end of both
    }
  }
}
