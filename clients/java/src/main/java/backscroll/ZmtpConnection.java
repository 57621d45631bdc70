package backscroll;

import java.io.IOException;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.util.ArrayDeque;
import java.util.Arrays;

/**
 * One connection to a daemon, over ipc or tcp, without blocking. The end of the stream is the end
 * of the connection; it never connects again.
 */
final class ZmtpConnection {
  private static final int BUFFER_BYTES = 64 * 1024;

  /** What happens on a connection. After {@code closed} nothing does. */
  interface Events {
    /** The daemon is ready: requests may be sent from now on. */
    void ready();

    void message(byte[] body);

    void closed(String reason);
  }

  private final Events events;
  private final SocketChannel channel;
  private final SelectionKey key;
  private final ZmtpDecoder decoder = new ZmtpDecoder(new Decoded());
  private final ByteBuffer incoming = ByteBuffer.allocate(BUFFER_BYTES);
  private final ByteBuffer outgoing = ByteBuffer.allocate(BUFFER_BYTES).flip();
  private final ArrayDeque<ByteBuffer> toSend = new ArrayDeque<>();
  private boolean isConnected;
  private boolean isClosed;
  private long receivedAt = System.nanoTime();

  ZmtpConnection(Selector selector, SocketAddress target, Events events) throws IOException {
    this.events = events;
    boolean isLocal = target instanceof UnixDomainSocketAddress;
    channel = isLocal ? SocketChannel.open(StandardProtocolFamily.UNIX) : SocketChannel.open();
    try {
      channel.configureBlocking(false);
      if (!isLocal) {
        channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
      }
      boolean isThere = channel.connect(target);
      int next = isThere ? SelectionKey.OP_WRITE : SelectionKey.OP_CONNECT;
      key = channel.register(selector, next, this);
    } catch (IOException | RuntimeException e) {
      channel.close();
      throw e;
    }
  }

  /** When the latest bytes arrived. */
  long receivedAt() {
    return receivedAt;
  }

  /** Sends a message, whose body has several parts, with the next {@link #flush}. */
  void send(byte[]... body) {
    long size = Arrays.stream(body).mapToLong(each -> each.length).sum();
    toSend.add(ZmtpDecoder.header(size));
    for (byte[] each : body) {
      toSend.add(ByteBuffer.wrap(each));
    }
  }

  /** Does what the selector says is possible. */
  void selected() {
    try {
      if (!isConnected && channel.finishConnect()) {
        isConnected = true;
        toSend.add(ZmtpDecoder.greeting());
      }
      if (isConnected && !isClosed && key.isReadable()) {
        receive();
      }
      flush();
    } catch (IOException e) {
      close(reasonOf(e));
    }
  }

  /** Writes what was sent, as far as the daemon takes it; the rest is written when it can be. */
  void flush() {
    if (!isConnected || isClosed) {
      return;
    }
    try {
      while (fill() && channel.write(outgoing) > 0) {
        continue;
      }
      boolean isBlocked = outgoing.hasRemaining();
      key.interestOps(SelectionKey.OP_READ | (isBlocked ? SelectionKey.OP_WRITE : 0));
    } catch (IOException e) {
      close(reasonOf(e));
    }
  }

  void close(String reason) {
    if (isClosed) {
      return;
    }
    isClosed = true;
    try {
      channel.close();
    } catch (IOException e) {
      // There is nothing to do about it: the connection is given up in any case.
    }
    events.closed(reason);
  }

  /** Has something to write in the buffer; returns false if there is nothing. */
  private boolean fill() {
    outgoing.compact();
    while (outgoing.hasRemaining() && !toSend.isEmpty()) {
      move(toSend.peek(), outgoing);
      if (!toSend.peek().hasRemaining()) {
        toSend.remove();
      }
    }
    return outgoing.flip().hasRemaining();
  }

  private void receive() throws IOException {
    if (channel.read(incoming.clear()) < 0) {
      close("the connection was closed");
      return;
    }
    receivedAt = System.nanoTime();
    incoming.flip();
    while (!isClosed && incoming.hasRemaining()) {
      decoder.take(incoming);
    }
  }

  /** Moves as many bytes as there are and as there is room for. */
  static void move(ByteBuffer from, ByteBuffer to) {
    int size = Math.min(from.remaining(), to.remaining());
    to.put(from.slice(from.position(), size));
    from.position(from.position() + size);
  }

  static String reasonOf(IOException e) {
    return e.getMessage() == null ? e.toString() : e.getMessage();
  }

  private final class Decoded implements ZmtpDecoder.Events {
    @Override
    public void greeted(ByteBuffer answer) {
      toSend.add(answer);
    }

    @Override
    public void ready() {
      events.ready();
    }

    @Override
    public void message(byte[] body) {
      events.message(body);
    }

    @Override
    public void refused(String reason) {
      close(reason);
    }
  }
}
