package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** {@code retry.json}: the events are played on the client's own {@link PendingCalls}. */
final class RetryVectors {
  private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
  private static final long TIMEOUT_MS = 5_000;
  private static final List<String> EVENT_KEYS =
      List.of("at do call kind waitMs timeoutMs kilobytes with sends outcomes givesUp".split(" "));
  private static final Map<String, String> OPERATIONS =
      Map.of(
          "command", "initialize {}",
          "query", "get-user {\"userId\": \"ada\"}",
          "waiting", "get-changes {}",
          "maintenance", "delete-scope {}",
          "large", "save-user {\"user\": {\"oderId\": \"ada\", \"id\": \"ada\"}}");

  private final Map<String, String> outcomes = new LinkedHashMap<>();
  private final PendingCalls pending = new PendingCalls();
  private final Map<String, Call> calls = new HashMap<>();
  private final Set<String> clients = new HashSet<>();

  /** When the latest reply arrived; before anything was sent, if none did on this connection. */
  private long receivedAt = -1;

  private boolean givesUp;

  private RetryVectors() {}

  /** A row of the table: the state and the outcome that its event leads to. */
  static String playRow(JsonNode vector, JsonNode states) throws IOException {
    RetryVectors machine = new RetryVectors();
    for (JsonNode event : states.path(vector.get("state").textValue())) {
      machine.play(event);
    }
    String state = vector.get("state").textValue().split(",")[0];
    String begins = Vectors.difference("the state before", state, machine.state("a"));
    machine.play(vector.get("event"));
    String outcome = state.equals("settled") ? "" : machine.outcomes.getOrDefault("a", "");
    return Vectors.first(
        begins,
        Vectors.difference("to", vector.get("to").textValue(), machine.state("a")),
        Vectors.difference("outcome", vector.path("outcome").asText(""), outcome));
  }

  static String playSequence(JsonNode vector) throws IOException {
    RetryVectors machine = new RetryVectors();
    int index = 0;
    for (JsonNode event : vector.get("events")) {
      String differs = machine.play(event);
      if (!differs.isEmpty()) {
        return "events[" + index + "] (" + event.get("do").textValue() + "): " + differs;
      }
      index++;
    }
    return "";
  }

  /** Do an event; returns what it led to and should not have. */
  private String play(JsonNode event) throws IOException {
    Vectors.checkKeys(event, EVENT_KEYS);
    Set<String> before = Set.copyOf(outcomes.keySet());
    givesUp = false;
    JsonNode sends = inRanges(execute(event));
    List<ObjectNode> settled = new ArrayList<>();
    outcomes.forEach(
        (name, outcome) -> {
          if (!before.contains(name)) {
            settled.add(JSON.objectNode().put("call", name).put("outcome", outcome));
          }
        });
    ObjectNode found = JSON.objectNode();
    inRanges(settled).forEach(each -> found.set(each.get("call").textValue(), each.get("outcome")));
    boolean isSend = event.get("do").textValue().equals("send");
    JsonNode expected = isSend ? event.path("sends") : JSON.arrayNode();
    return Vectors.first(
        Vectors.difference("sends", expected.isMissingNode() ? sends : expected, sends),
        Vectors.difference(
            "outcomes", event.has("outcomes") ? event.get("outcomes") : JSON.objectNode(), found),
        Vectors.difference("givesUp", event.path("givesUp").asBoolean(), givesUp),
        clients.size() > 1 ? "the commands have not all the same `client`" : "");
  }

  /** The state of a call, in the words of the table. */
  private String state(String name) {
    Call call = call(name);
    if (outcomes.containsKey(name)) {
      return "settled";
    }
    if (call.isAwaitingReply) {
      return call.isInDoubt ? "resent" : "sent";
    }
    if (!call.isInDoubt) {
      return "to-send";
    }
    return pending.retryAt() == null ? "to-resend" : "to-retry";
  }

  private Call call(String name) {
    if (!calls.containsKey(name)) {
      throw new IllegalArgumentException("there is no call " + name);
    }
    return calls.get(name);
  }

  /** Do an event; returns what is sent. */
  private List<ObjectNode> execute(JsonNode event) throws IOException {
    long now = TimeUnit.MILLISECONDS.toNanos(event.get("at").longValue());
    List<String> names = callsIn(event.path("call").asText(""));
    switch (event.get("do").textValue()) {
      case "add" -> names.forEach(name -> add(event, name, now));
      case "send" -> {
        return send(now);
      }
      case "reply" -> {
        receivedAt = now;
        for (String name : names) {
          byte[] reply = reply(name, event.path("with").asText());
          pending.handleReply(Reply.read(reply, pending::resultType), now);
        }
      }
      case "connected" -> {
        receivedAt = now - 1;
        pending.reconnected();
      }
      case "wait" -> pending.queueRetry(now);
      case "deadline" -> {
        for (String name : names) {
          Call call = call(name);
          if (!call.isSettled) {
            givesUp |= pending.timeOut(call, call.unansweredInTime(), receivedAt);
          }
        }
      }
      case "close" -> pending.close(PendingCalls.CLOSED);
      default -> throw new IllegalArgumentException("unknown event " + event);
    }
    return List.of();
  }

  private void add(JsonNode event, String name, long now) {
    String[] operation = OPERATIONS.get(event.path("kind").asText()).split(" ", 2);
    ObjectNode payload = (ObjectNode) Vectors.parsed(operation[1]);
    if (event.has("waitMs")) {
      payload.set("waitMs", event.get("waitMs"));
    }
    if (event.has("kilobytes")) {
      payload.put("padding", "x".repeat(1000 * event.get("kilobytes").intValue()));
    }
    long timeoutMs = event.path("timeoutMs").asLong(TIMEOUT_MS);
    Call.Envelope envelope = new Call.Envelope(timeoutMs, null, name, null);
    Map<?, ?> fields = Json.convert(payload, Map.class);
    Call call =
        new Call(
            operation[0],
            fields,
            envelope,
            now,
            (settled, answer, error) -> outcomes.put(name, error == null ? "ok" : error.code()));
    calls.put(name, call);
    try {
      pending.reserve(call);
      pending.add(call);
    } catch (BackscrollException e) {
      outcomes.put(name, e.code());
    }
  }

  private byte[] reply(String id, String code) {
    ObjectNode reply = JSON.objectNode().put("id", id).put("ok", code.equals("ok"));
    if (code.equals("ok")) {
      boolean isPage = calls.containsKey(id) && calls.get(id).waits();
      String page = "{\"changes\": [], \"cursor\": \"c\", \"more\": false}";
      reply.set("result", Vectors.parsed(isPage ? page : "null"));
      reply.put("seq", 1);
    } else {
      boolean isByCaller =
          backscroll.errors.ErrorTable.exceptionFor(new ErrorReply(code, "", "daemon", true, null))
              instanceof CallerException;
      reply
          .putObject("error")
          .put("code", code)
          .put("message", "refused")
          .put("fault", isByCaller ? "caller" : "daemon")
          .put("retryable", true);
    }
    return reply.toString().getBytes(StandardCharsets.UTF_8);
  }

  private List<ObjectNode> send(long now) throws IOException {
    List<ObjectNode> sends = new ArrayList<>();
    for (Call call = pending.next(); call != null; call = pending.next()) {
      ByteArrayOutputStream bytes = new ByteArrayOutputStream();
      for (byte[] part : pending.markSent(call, now, null)) {
        bytes.write(part);
      }
      JsonNode body = Json.tree(bytes.toByteArray());
      if (body.has("client") != body.has("n")) {
        throw new IllegalArgumentException("`client` and `n` go together");
      }
      ObjectNode sent = JSON.objectNode().put("call", call.id);
      if (body.has("n")) {
        clients.add(body.get("client").textValue());
        sent.set("n", body.get("n"));
      }
      sent.set("deadlineMs", body.get("deadlineMs"));
      if (call.waits()) {
        sent.put("waitMs", body.get("payload").path("waitMs").asLong());
      }
      sends.add(sent);
    }
    return sends;
  }

  /** The names of the calls in {@code a}, or in {@code a-1 to a-1000}. */
  private static List<String> callsIn(String names) {
    String[] ends = names.split(" to ");
    if (ends.length == 1) {
      return List.of(names);
    }
    List<String> calls = new ArrayList<>();
    for (int number = numberIn(ends[0]); number <= numberIn(ends[1]); number++) {
      calls.add(groupIn(ends[0]) + "-" + number);
    }
    return calls;
  }

  private static String groupIn(String name) {
    return name.substring(0, Math.max(0, name.lastIndexOf('-')));
  }

  private static int numberIn(String name) {
    return Integer.parseInt(name.substring(name.lastIndexOf('-') + 1));
  }

  /**
   * Entries of calls with successive numbers, such as {@code a-1} and {@code a-2}, as one, if
   * nothing but {@code n} differs, which has to rise with them.
   */
  private static ArrayNode inRanges(List<ObjectNode> entries) {
    ArrayNode ranges = JSON.arrayNode();
    for (int begin = 0, end; begin < entries.size(); begin = end) {
      end = begin + 1;
      while (end < entries.size() && isNext(entries.get(begin), end - begin, entries.get(end))) {
        end++;
      }
      ObjectNode range = entries.get(begin).deepCopy();
      if (end > begin + 1) {
        String last = entries.get(end - 1).get("call").textValue();
        range.put("call", range.get("call").textValue() + " to " + last);
      }
      ranges.add(range);
    }
    return ranges;
  }

  /** Whether an entry comes so many calls after the first one of a range. */
  private static boolean isNext(ObjectNode first, int after, ObjectNode entry) {
    String name = first.get("call").textValue();
    if (!name.matches(".*-\\d+")) {
      return false;
    }
    ObjectNode expected = first.deepCopy();
    expected.put("call", groupIn(name) + "-" + (numberIn(name) + after));
    if (first.has("n")) {
      expected.put("n", first.get("n").longValue() + after);
    }
    return Vectors.difference("", expected, entry).isEmpty();
  }
}
