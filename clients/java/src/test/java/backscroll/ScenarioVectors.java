package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;

/** {@code scenarios.json}: steps that the client does on a real daemon. */
final class ScenarioVectors {
  private static final List<String> STEP_KEYS =
      List.of("type", "id", "payload", "scope", "meanwhile", "result", "error");

  private final VectorContext context;
  private final String scope;
  private final Map<String, JsonNode> bound = new HashMap<>();

  private ScenarioVectors(VectorContext context) {
    this.context = context;
    scope = context.newScope();
  }

  static String play(JsonNode vector, VectorContext context) throws Exception {
    ScenarioVectors scenario = new ScenarioVectors(context);
    int index = 0;
    for (JsonNode step : vector.get("steps")) {
      String differs = scenario.play(step);
      if (!differs.isEmpty()) {
        return "steps[" + index + "] (" + step.get("type").textValue() + "): " + differs;
      }
      index++;
    }
    return "";
  }

  private String play(JsonNode step) throws IOException, InterruptedException {
    Vectors.checkKeys(step, STEP_KEYS);
    Client client = context.client(scope + step.path("scope").asText(""));
    JsonNode payload = step.has("payload") ? filled(step.get("payload")) : Vectors.parsed("{}");
    RequestOptions options = RequestOptions.of().withRequestId(step.path("id").textValue());
    Request<?> request = VectorContext.request(step.get("type").textValue(), payload.toString());
    CompletableFuture<? extends Answer<?>> asked = client.answerAsync(request, options);
    for (JsonNode inner : step.path("meanwhile")) {
      String differs = play(inner);
      if (!differs.isEmpty()) {
        return differs;
      }
    }
    return compare(step, replyTo(asked));
  }

  /** A result, or an error. */
  private static ObjectNode replyTo(CompletableFuture<? extends Answer<?>> asked)
      throws InterruptedException {
    ObjectNode reply = JsonNodeFactory.instance.objectNode();
    try {
      reply.set("result", Vectors.plain(asked.get().result()));
    } catch (ExecutionException e) {
      BackscrollException error = (BackscrollException) e.getCause();
      ObjectNode details = Json.convert(error.details(), ObjectNode.class);
      JsonNode path = details.remove("path");
      ObjectNode found = reply.putObject("error").put("code", error.code());
      found.set("path", path == null ? Vectors.parsed("null") : path);
      found.set("details", details);
    }
    return reply;
  }

  /** A payload with what its placeholders stand for. */
  private JsonNode filled(JsonNode value) {
    if (value.isTextual() && value.textValue().startsWith("$")) {
      String text = value.textValue();
      return text.startsWith("$$") ? new TextNode(text.substring(1)) : bound.get(text);
    }
    if (value.isArray()) {
      ArrayNode list = JsonNodeFactory.instance.arrayNode();
      value.forEach(each -> list.add(filled(each)));
      return list;
    }
    if (value.isObject()) {
      ObjectNode object = JsonNodeFactory.instance.objectNode();
      value.properties().forEach(each -> object.set(each.getKey(), filled(each.getValue())));
      return object;
    }
    return value;
  }

  private String compare(JsonNode step, ObjectNode found) {
    if (!step.has("error")) {
      return found.has("result")
          ? match(step.path("result"), found.get("result"), "result")
          : "expected a result, got " + found;
    }
    if (!found.has("error")) {
      return "expected the error " + step.get("error").get("code") + ", got " + found;
    }
    for (String name : Vectors.names(step.get("error"))) {
      JsonNode actual = found.get("error").path(name);
      String differs = match(step.get("error").get(name), actual, "error." + name);
      if (!differs.isEmpty()) {
        return differs;
      }
    }
    return "";
  }

  /** What differs from what is expected; placeholders take what is there the first time. */
  private String match(JsonNode expected, JsonNode actual, String where) {
    String text = expected.isTextual() ? expected.textValue() : "";
    if (text.equals("$any")) {
      return "";
    }
    if (text.startsWith("$$")) {
      return Vectors.difference(where, new TextNode(text.substring(1)), actual);
    }
    if (text.startsWith("$")) {
      bound.putIfAbsent(text, actual);
      return Vectors.difference(where, bound.get(text), actual);
    }
    if (!expected.isContainerNode() || expected.getNodeType() != actual.getNodeType()) {
      return Vectors.difference(where, expected, actual);
    }
    if (!Vectors.names(expected).equals(Vectors.names(actual))
        || expected.size() != actual.size()) {
      return where + ": expected " + expected + ", got " + actual;
    }
    for (String name : Vectors.names(expected)) {
      String differs = match(expected.get(name), actual.get(name), where + "." + name);
      if (!differs.isEmpty()) {
        return differs;
      }
    }
    for (int index = 0; expected.isArray() && index < expected.size(); index++) {
      String differs = match(expected.get(index), actual.get(index), where + "[" + index + "]");
      if (!differs.isEmpty()) {
        return differs;
      }
    }
    return "";
  }
}
