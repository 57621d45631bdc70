package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.ReentrantLock;

/** A program that speaks ZMTP and answers what a test says. */
final class FakeDaemon implements AutoCloseable {
  static final byte[] GREETING =
      Arrays.copyOf("\377\0\0\0\0\0\0\0\0\177\3\0NULL".getBytes(StandardCharsets.ISO_8859_1), 64);
  static final byte[] READY =
      "\4\34\5READY\13Socket-Type\0\0\0\6ROUTER".getBytes(StandardCharsets.ISO_8859_1);
  private static final int LONG = 2;
  private static final int COMMAND = 4;

  /** Answers a request; null if there is no answer. */
  interface Handler {
    JsonNode answer(JsonNode request, Peer peer) throws IOException;
  }

  /** One connection. */
  record Peer(SocketChannel channel) {
    void close() throws IOException {
      channel.close();
    }

    void send(String text) throws IOException {
      byte[] body = text.getBytes(StandardCharsets.UTF_8);
      ByteBuffer frame = ByteBuffer.allocate(9 + body.length).put((byte) LONG);
      write(frame.putLong(body.length).put(body).array());
    }

    synchronized void write(byte[] bytes) throws IOException {
      ByteBuffer buffer = ByteBuffer.wrap(bytes);
      while (buffer.hasRemaining()) {
        channel.write(buffer);
      }
    }
  }

  final List<String> bodies = new CopyOnWriteArrayList<>();
  final AtomicInteger connections = new AtomicInteger();
  private final ReentrantLock answering = new ReentrantLock();
  private final ServerSocketChannel server;
  private final Handler handler;
  private final Set<SocketChannel> channels = ConcurrentHashMap.newKeySet();

  private FakeDaemon(ServerSocketChannel server, SocketAddress address, Handler handler)
      throws IOException {
    this.server = server;
    this.handler = handler;
    server.bind(address);
    begin(this::accept);
  }

  static FakeDaemon on(Path path, Handler handler) throws IOException {
    ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
    return new FakeDaemon(server, UnixDomainSocketAddress.of(path), handler);
  }

  static FakeDaemon onPort(int port, Handler handler) throws IOException {
    return new FakeDaemon(
        ServerSocketChannel.open(), new InetSocketAddress("127.0.0.1", port), handler);
  }

  String endpoint() {
    try {
      SocketAddress address = server.getLocalAddress();
      return address instanceof InetSocketAddress tcp
          ? "tcp://127.0.0.1:" + tcp.getPort()
          : "ipc://" + address;
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  List<JsonNode> requests() {
    return bodies.stream().map(Vectors::parsed).toList();
  }

  /** The value of a field in each request, as text; empty where there is none. */
  List<String> all(String pointer) {
    return requests().stream().map(each -> each.at(pointer).asText()).toList();
  }

  /** Answers nothing until {@link #release}. */
  void hold() {
    answering.lock();
  }

  void release() {
    answering.unlock();
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
    Thread thread = new Thread(work, "fake daemon");
    thread.setDaemon(true);
    thread.start();
  }

  private void accept() {
    try {
      while (true) {
        SocketChannel channel = server.accept();
        connections.incrementAndGet();
        channels.add(channel);
        begin(() -> serve(channel));
      }
    } catch (IOException e) {
      // it was closed
    }
  }

  private void serve(SocketChannel channel) {
    try (channel) {
      Peer peer = new Peer(channel);
      DataInputStream in = new DataInputStream(Channels.newInputStream(channel));
      peer.write(GREETING);
      in.readNBytes(GREETING.length);
      peer.write(READY);
      while (true) {
        int flags = in.readUnsignedByte();
        int size = (flags & LONG) != 0 ? (int) in.readLong() : in.readUnsignedByte();
        byte[] body = new byte[size];
        in.readFully(body);
        if ((flags & COMMAND) == 0) {
          answer(new String(body, StandardCharsets.UTF_8), peer);
        }
      }
    } catch (IOException e) {
      channels.remove(channel);
    }
  }

  private void answer(String body, Peer peer) throws IOException {
    bodies.add(body);
    answering.lock();
    answering.unlock();
    JsonNode reply = handler.answer(Vectors.parsed(body), peer);
    if (reply != null) {
      peer.send(reply.toString());
    }
  }

  static JsonNode ok(JsonNode request, Object result) {
    ObjectNode reply = JsonNodeFactory.instance.objectNode();
    reply.set("id", request.get("id"));
    reply.put("ok", true);
    reply.set("result", result == null ? null : Json.convert(result, JsonNode.class));
    return reply.put("seq", 1);
  }

  static JsonNode ok(JsonNode request) {
    return ok(request, null);
  }

  static JsonNode pong(JsonNode request) {
    return ok(request, java.util.Map.of("pong", true));
  }

  static JsonNode refusal(JsonNode request, String code, String fault) {
    ObjectNode reply = JsonNodeFactory.instance.objectNode();
    reply.set("id", request.get("id"));
    reply.put("ok", false);
    reply
        .putObject("error")
        .put("code", code)
        .put("message", "refused: " + code)
        .put("fault", fault)
        .put("retryable", fault.equals("daemon"));
    return reply;
  }

  static String type(JsonNode request) {
    return request.get("type").textValue();
  }
}
