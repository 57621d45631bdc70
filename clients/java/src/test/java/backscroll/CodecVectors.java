package backscroll;

import backscroll.internal.Json;
import backscroll.records.LogEntry;
import backscroll.records.Message;
import backscroll.records.Room;
import backscroll.requests.AppendLog;
import backscroll.requests.GetLog;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

/**
 * {@code codec.json} and {@code canonical.json}. The client has no canonical form: a daemon
 * executes what it sends, and the digest in the log tells whether the canonical form of that is the
 * expected one.
 */
final class CodecVectors {
  /** When the commands of the canonical vectors took effect. */
  private static final Instant AT = Instant.ofEpochMilli(1_767_225_600_000L);

  private CodecVectors() {}

  /** Have the client send a payload, or refuse it. */
  static String playRequest(JsonNode vector, VectorContext context) throws IOException {
    Client client = context.client("codec");
    prepare(client);
    String type = vector.get("type").textValue();
    long seq;
    try {
      seq = VectorContext.answer(client, type, vector.get("json").textValue(), null).seq();
    } catch (BackscrollException e) {
      ObjectNode found = JsonNodeFactory.instance.objectNode().put("code", e.code());
      found.set("path", Vectors.plain(e.details().get("path")));
      return Vectors.difference("error", vector.path("error"), found);
    }
    if (!vector.has("canonical")) {
      return "the client sends it, and the daemon accepts it";
    }
    LogEntry entry = entryOf(client, seq);
    String canonical = vector.get("canonical").textValue();
    if (entry.digest().equals(digestOf(entry.salt(), canonical))) {
      return "";
    }
    return "the canonical form of what was sent is another one than "
        + canonical
        + ": "
        + entry.payload();
  }

  /** Save what the requests refer to. */
  private static void prepare(Client client) {
    if (client.getRoom("default").isEmpty()) {
      client.saveRoom(Room.of("default", "d"));
      Message message = Message.of("m1", "r1", "", Instant.ofEpochMilli(1)).withSenderId("ada");
      client.saveMessage(message);
    }
  }

  /** Have the client read a reply. */
  static String playReply(JsonNode vector) {
    Answer<?>[] answers = new Answer<?>[1];
    BackscrollException[] errors = new BackscrollException[1];
    read(
        vector,
        (call, answer, error) -> {
          answers[0] = answer;
          errors[0] = error;
        });
    if (vector.path("invalid").asBoolean()) {
      boolean isInvalid = errors[0] instanceof backscroll.errors.InternalException;
      return isInvalid ? "" : "it is taken for a reply";
    }
    if (errors[0] != null) {
      return compared(vector, errors[0]);
    }
    if (!vector.has("result")) {
      return "it is taken for a success";
    }
    JsonNode result = answers[0] == null ? null : Vectors.plain(answers[0].result());
    String differs = Vectors.difference("result", vector.get("result"), orMissing(result));
    if (differs.isEmpty() || !vector.has("kept")) {
      return differs;
    }
    return Vectors.difference("result", vector.get("kept"), orMissing(result));
  }

  private static JsonNode orMissing(JsonNode result) {
    return result == null ? com.fasterxml.jackson.databind.node.MissingNode.getInstance() : result;
  }

  private static void read(JsonNode vector, Call.Outcome outcome) {
    PendingCalls pending = new PendingCalls();
    Call.Envelope envelope = new Call.Envelope(VectorContext.TIMEOUT.toMillis(), null, "1", null);
    Call call = new Call(vector.get("type").textValue(), Map.of(), envelope, 0, outcome);
    pending.add(call);
    pending.markSent(pending.next(), 0, null);
    byte[] body = vector.get("json").textValue().getBytes(StandardCharsets.UTF_8);
    try {
      pending.handleReply(Reply.read(body, pending::resultType), 0);
    } catch (BackscrollException e) {
      outcome.settled(call, null, e);
    }
  }

  private static String compared(JsonNode vector, BackscrollException error) {
    ObjectNode found =
        JsonNodeFactory.instance
            .objectNode()
            .put("code", error.code())
            .put("fault", error.fault())
            .put("retryable", error.isRetryable())
            .put("message", error.getMessage());
    if (!error.details().isEmpty()) {
      found.set("details", Json.convert(error.details(), JsonNode.class));
    }
    String base = "caller".equals(error.fault()) ? "CallerException" : "DaemonException";
    boolean isKnown = !error.getClass().getPackageName().equals("backscroll");
    String name = error.getClass().getSimpleName();
    String expected = isKnown ? nameOf(error.code()) : base;
    return Vectors.first(
        Vectors.difference("error", vector.path("error"), found),
        Vectors.difference("the class of " + error.code(), expected, name));
  }

  private static String nameOf(String code) {
    StringBuilder name = new StringBuilder();
    for (String word : code.split("-")) {
      name.append(word.substring(0, 1).toUpperCase()).append(word.substring(1));
    }
    return name + "Exception";
  }

  /** Append the first payload to a log, where it has a digest; with the same id others retry it. */
  static String playCanonical(JsonNode vector, VectorContext context) throws IOException {
    Client client = context.client("canonical");
    String type = vector.get("type").textValue();
    String salt = vector.get("salt").textValue();
    String digest = vector.get("digest").textValue();
    List<String> payloads = Vectors.texts(vector.get("json"));
    long seq = client.getLog(GetLog.of().withLimit(1)).lastSeq() + 1;
    String id = "c" + seq;
    Object first = Json.convert(Vectors.parsed(payloads.get(0)), Object.class);
    LogEntry entry = LogEntry.of(seq, AT, id, type).withPayload(first).withSalt(salt);
    client.call(AppendLog.of(List.of(entry)));
    String canonical = vector.get("canonical").textValue();
    String differs =
        Vectors.first(
            Vectors.difference("the digest in the log", digest, entryOf(client, seq).digest()),
            Vectors.difference("SHA-256(salt · canonical)", digest, digestOf(salt, canonical)));
    for (String text : differs.isEmpty() ? payloads.subList(1, payloads.size()) : payloads) {
      if (!differs.isEmpty()) {
        return differs;
      }
      try {
        Answer<?> answer = VectorContext.answer(client, type, text, id);
        differs = answer.seq() == seq ? "" : text + " was executed again";
      } catch (BackscrollException e) {
        differs = text + " is not the same command: " + e.getMessage();
      }
    }
    return differs;
  }

  private static LogEntry entryOf(Client client, long seq) {
    return client.getLog(GetLog.of().withFromSeq(seq).withLimit(1)).entries().get(0);
  }

  private static String digestOf(String salt, String canonical) {
    byte[] bytes = HexFormat.of().parseHex((salt == null ? "" : salt) + canonical);
    return HexFormat.of().formatHex(Address.sha256(bytes));
  }
}
