package backscroll;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.concurrent.TimeUnit;

/**
 * The daemon's end of a connection, read by a thread of its own, so that reading has a deadline.
 */
final class PeerStream implements AutoCloseable {
  static final int MORE = 1;
  static final int LONG = 2;
  static final int COMMAND = 4;
  private static final long TIMEOUT_MS = 10_000;

  /** A frame of ZMTP. */
  record Frame(int flags, byte[] body) {}

  private final SocketChannel channel;
  private final ByteArrayOutputStream received = new ByteArrayOutputStream();
  private int used;
  private boolean hasEnded;

  PeerStream(SocketChannel channel) {
    this.channel = channel;
    Thread reader = new Thread(this::readAll, "peer");
    reader.setDaemon(true);
    reader.start();
  }

  private void readAll() {
    ByteBuffer buffer = ByteBuffer.allocate(64 * 1024);
    try {
      while (channel.read(buffer.clear()) >= 0) {
        synchronized (this) {
          received.write(buffer.array(), 0, buffer.position());
          notifyAll();
        }
      }
    } catch (IOException e) {
      // it is the end as well
    }
    synchronized (this) {
      hasEnded = true;
      notifyAll();
    }
  }

  private int available() {
    return received.size() - used;
  }

  synchronized byte[] read(int size) throws IOException, InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(TIMEOUT_MS);
    while (available() < size) {
      String got = available() + " of " + size + " bytes";
      if (hasEnded) {
        throw new IOException("the client closed the connection after " + got);
      }
      waitUntil(deadline, "the client sent " + got);
    }
    byte[] all = received.toByteArray();
    byte[] found = java.util.Arrays.copyOfRange(all, used, used + size);
    received.reset();
    received.write(all, used + size, all.length - used - size);
    used = 0;
    return found;
  }

  Frame frame() throws IOException, InterruptedException {
    int flags = read(1)[0] & 0xff;
    long size = (flags & LONG) != 0 ? ByteBuffer.wrap(read(8)).getLong() : read(1)[0] & 0xff;
    return new Frame(flags, read((int) size));
  }

  /** Throws if anything arrives in this time. */
  synchronized void silence(long milliseconds) throws IOException, InterruptedException {
    long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(milliseconds);
    while (available() == 0 && System.nanoTime() < end) {
      TimeUnit.NANOSECONDS.timedWait(this, end - System.nanoTime());
    }
    if (available() > 0) {
      throw new IOException("the client sent something where nothing may come");
    }
  }

  /** Waits until the client closes the connection. */
  synchronized void end() throws IOException, InterruptedException {
    long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(TIMEOUT_MS);
    while (!hasEnded) {
      waitUntil(deadline, "the client did not close the connection");
    }
  }

  private void waitUntil(long deadline, String problem) throws IOException, InterruptedException {
    long left = deadline - System.nanoTime();
    if (left <= 0) {
      throw new IOException(problem);
    }
    TimeUnit.NANOSECONDS.timedWait(this, left);
  }

  void write(byte[] bytes) throws IOException {
    ByteBuffer buffer = ByteBuffer.wrap(bytes);
    while (buffer.hasRemaining()) {
      channel.write(buffer);
    }
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}
