package backscroll;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** {@code zmtp.json}: a daemon byte by byte, which a client pings. */
final class ZmtpVectors {
  private static final List<String> STEP_KEYS =
      List.of("send", "each", "receive", "silent", "reply", "padding", "end");
  private static final int GREETING_BYTES = 64;
  private static int sockets;

  private ZmtpVectors() {}

  static String play(JsonNode vector, VectorContext context) throws Exception {
    Path path = context.directory.resolve("z" + ++sockets);
    Client client =
        Client.builder().endpoint("ipc://" + path).timeout(VectorContext.TIMEOUT).connect();
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(UnixDomainSocketAddress.of(path));
      CompletableFuture<String> served =
          CompletableFuture.supplyAsync(() -> serve(server, vector.get("connections")));
      CompletableFuture<String> ping =
          client.async().ping().handle((pong, error) -> error == null ? "" : error.getMessage());
      // A daemon that met something wrong plays no further, so the client waits in vain.
      Object first = CompletableFuture.anyOf(served, ping).get();
      if (!first.equals("")) {
        return first.toString();
      }
      String pinged = ping.get();
      client.close(); // a daemon that expects more than it gets learns so by that
      return Vectors.first(served.get(), pinged);
    } finally {
      client.close();
      Files.deleteIfExists(path);
    }
  }

  /** Play one connection after the other; returns what is not as expected. */
  private static String serve(ServerSocketChannel server, JsonNode connections) {
    for (int index = 0; index < connections.size(); index++) {
      try {
        PeerStream stream = new PeerStream(server.accept());
        boolean isEnded = play(stream, connections.get(index));
        boolean isLast = index + 1 == connections.size();
        if (!isLast && !isEnded) {
          stream.end();
        }
        if (!isLast) {
          stream.close();
        }
      } catch (IOException | InterruptedException | RuntimeException e) {
        return "connection " + (index + 1) + " of " + connections.size() + ": " + e.getMessage();
      }
    }
    return "";
  }

  /** Play the steps of a connection; returns whether they end it. */
  private static boolean play(PeerStream stream, JsonNode steps)
      throws IOException, InterruptedException {
    JsonNode request = null;
    for (JsonNode step : steps) {
      Vectors.checkKeys(step, STEP_KEYS);
      if (step.has("end")) {
        return true;
      } else if (step.has("receive")) {
        switch (step.get("receive").textValue()) {
          case "greeting" -> checkGreeting(stream.read(GREETING_BYTES));
          case "ready" -> checkReady(stream.frame());
          default -> request = received(stream);
        }
      } else if (step.has("silent")) {
        stream.silence(step.get("silent").longValue());
      } else if (step.has("reply")) {
        int flags = step.get("reply").intValue();
        stream.write(replyTo(request, flags, step.path("padding").intValue()));
      } else {
        send(stream, HexFormat.of().parseHex(step.get("send").textValue()), step.has("each"));
      }
    }
    return false;
  }

  private static void send(PeerStream stream, byte[] bytes, boolean isEach) throws IOException {
    if (!isEach) {
      stream.write(bytes);
      return;
    }
    for (byte each : bytes) {
      stream.write(new byte[] {each});
    }
  }

  private static void checkGreeting(byte[] greeting) throws IOException {
    String mechanism = new String(greeting, 12, 20, StandardCharsets.ISO_8859_1).replace("\0", "");
    if (greeting[0] != -1
        || greeting[9] != 0x7f
        || greeting[10] != 3
        || !mechanism.equals("NULL")) {
      throw new IOException("the client's greeting is not one of ZMTP 3 with the mechanism NULL");
    }
  }

  private static void checkReady(PeerStream.Frame frame) throws IOException {
    String text = new String(frame.body(), StandardCharsets.ISO_8859_1);
    boolean isReady = text.startsWith("\5READY") && text.contains("\13Socket-Type\0\0\0\6DEALER");
    if ((frame.flags() & PeerStream.COMMAND) == 0 || !isReady) {
      throw new IOException("expected READY of a DEALER, got " + frame.flags() + " " + text);
    }
  }

  /** The client's next message, which must be one frame; commands are skipped. */
  private static JsonNode received(PeerStream stream) throws IOException, InterruptedException {
    while (true) {
      PeerStream.Frame frame = stream.frame();
      if ((frame.flags() & PeerStream.MORE) != 0) {
        throw new IOException("the client's request has more than one frame");
      }
      if ((frame.flags() & PeerStream.COMMAND) == 0) {
        return Vectors.parsed(new String(frame.body(), StandardCharsets.UTF_8));
      }
    }
  }

  /** A frame with the reply to a {@code ping}. */
  private static byte[] replyTo(JsonNode request, int flags, int padding) {
    ObjectNode reply = JsonNodeFactory.instance.objectNode();
    reply.set("id", request.get("id"));
    reply.put("ok", true).putObject("result").put("pong", true);
    reply.put("seq", 0);
    if (padding > 0) {
      reply.put("padding", "x".repeat(padding));
    }
    byte[] body = reply.toString().getBytes(StandardCharsets.UTF_8);
    boolean isLong = (flags & PeerStream.LONG) != 0;
    ByteBuffer frame = ByteBuffer.allocate((isLong ? 9 : 2) + body.length).put((byte) flags);
    if (isLong) {
      frame.putLong(body.length);
    } else {
      frame.put((byte) body.length);
    }
    return frame.put(body).array();
  }
}
