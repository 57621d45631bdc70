package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.channels.Selector;
import java.nio.charset.StandardCharsets;
import java.util.regex.Pattern;

/** {@code refusals.json}: bodies that no client makes, sent over one connection of this one. */
final class RefusalVectors implements ZmtpConnection.Events, AutoCloseable {
  private final Selector selector = Selector.open();
  private final ZmtpConnection connection;
  private boolean isReady;
  private byte[] reply;
  private String closed;

  RefusalVectors(String endpoint) throws IOException {
    connection = new ZmtpConnection(selector, Address.target(endpoint), this);
  }

  String play(JsonNode vector) throws IOException {
    for (JsonNode request : vector.path("before")) {
      JsonNode reply = exchanged(request.toString());
      if (!reply.path("ok").asBoolean()) {
        return "before it: " + reply;
      }
    }
    JsonNode reply = exchanged(Vectors.expanded(vector));
    if (!reply.has("error")) {
      return "the daemon accepts it";
    }
    ObjectNode found = reply.get("error").deepCopy();
    ObjectNode expected = vector.get("error").deepCopy();
    String pattern = expected.remove("message").textValue();
    String message = found.remove("message").textValue();
    JsonNode details = found.remove("details");
    if (details != null && details.has("path")) {
      found.set("path", details.get("path"));
    }
    boolean matches = Pattern.compile(pattern, Pattern.DOTALL).matcher(message).matches();
    return Vectors.first(
        Vectors.difference("id", vector.get("id"), reply.get("id")),
        Vectors.difference("error", expected, found),
        matches ? "" : "message: expected " + pattern + ", got " + message);
  }

  private JsonNode exchanged(String body) throws IOException {
    waitFor(() -> isReady);
    reply = null;
    connection.send(body.getBytes(StandardCharsets.UTF_8));
    connection.flush();
    waitFor(() -> reply != null);
    return Json.tree(reply);
  }

  private void waitFor(java.util.function.BooleanSupplier condition) throws IOException {
    long deadline = System.nanoTime() + VectorContext.TIMEOUT.toNanos();
    while (!condition.getAsBoolean()) {
      if (closed != null || System.nanoTime() > deadline) {
        throw new IOException(closed == null ? "no reply" : closed);
      }
      selector.select(key -> connection.selected(), 100);
    }
  }

  @Override
  public void ready() {
    isReady = true;
  }

  @Override
  public void message(byte[] body) {
    reply = body;
  }

  @Override
  public void closed(String reason) {
    closed = reason;
  }

  @Override
  public void close() throws IOException {
    connection.close("it is over");
    selector.close();
  }
}
