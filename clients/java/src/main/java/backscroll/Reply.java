package backscroll;

import backscroll.errors.ErrorTable;
import backscroll.internal.Json;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JavaType;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Function;

/**
 * A reply of the daemon: to which request, and its answer or its error.
 *
 * @param id the id of the request, or null if the daemon could not read one
 * @param isOk whether the request took effect; if its result cannot be read, there is an error too
 * @param answer the answer, or null
 * @param error the error, or null
 */
record Reply(String id, boolean isOk, Answer<?> answer, BackscrollException error) {
  private static final Map<ResultType, JavaType> JAVA_TYPES = new ConcurrentHashMap<>();

  /**
   * Decodes a reply; throws {@link backscroll.errors.InternalException} if it is none.
   *
   * @param typeOf the type of the result of a request that waits for its reply, or null
   */
  static Reply read(byte[] body, Function<String, ResultType> typeOf) {
    try {
      Reply reply = readAtOnce(body, typeOf);
      return reply != null ? reply : readAsTree(body, typeOf);
    } catch (JsonProcessingException e) {
      return readAsTree(body, typeOf);
    } catch (IOException e) {
      throw Errors.internal("the daemon sent an invalid reply");
    }
  }

  /** A success whose id comes before its result, as daemons write it; null for any other reply. */
  private static Reply readAtOnce(byte[] body, Function<String, ResultType> typeOf)
      throws IOException {
    try (JsonParser parser = Json.parser(body)) {
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        return null;
      }
      String id = null;
      boolean isOk = false;
      boolean hasResult = false;
      Object result = null;
      long seq = 0;
      for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
        JsonToken token = parser.nextToken();
        switch (name) {
          case "id" -> id = token == JsonToken.VALUE_STRING ? parser.getText() : null;
          case "ok" -> isOk = token == JsonToken.VALUE_TRUE;
          case "seq" -> seq = token == JsonToken.VALUE_NUMBER_INT ? parser.getLongValue() : 0;
          case "result" -> {
            ResultType type = id == null || !isOk || hasResult ? null : typeOf.apply(id);
            if (type == null) {
              return null;
            }
            result = typed(parser, token, type);
            hasResult = true;
          }
          default -> parser.skipChildren();
        }
      }
      boolean isWhole = isOk && hasResult && parser.nextToken() == null;
      return isWhole ? new Reply(id, true, new Answer<>(result, seq), null) : null;
    }
  }

  private static Object typed(JsonParser parser, JsonToken token, ResultType type)
      throws IOException {
    boolean isNull = token == JsonToken.VALUE_NULL;
    Object value = isNull ? null : Json.read(parser, javaType(type));
    return shaped(value, type);
  }

  /** Any reply, also one that has its parts in another order, or a result of another type. */
  private static Reply readAsTree(byte[] body, Function<String, ResultType> typeOf) {
    JsonNode reply;
    try {
      reply = Json.tree(body);
    } catch (IOException e) {
      throw Errors.internal("the daemon sent an invalid reply");
    }
    boolean isOk = reply.path("ok").asBoolean();
    JsonNode error = reply.path("error");
    boolean isComplete = isOk ? reply.has("result") : error.isObject() || error.isNull();
    if (!reply.path("ok").isBoolean() || !isComplete) {
      throw Errors.internal("the daemon sent an invalid reply");
    }
    String id = reply.path("id").isTextual() ? reply.get("id").textValue() : null;
    if (!isOk) {
      return new Reply(id, false, null, exceptionFrom(error));
    }
    ResultType type = id == null ? null : typeOf.apply(id);
    if (type == null) {
      return new Reply(id, true, new Answer<>(null, 0), null);
    }
    long seq = reply.path("seq").isIntegralNumber() ? reply.get("seq").longValue() : 0;
    try {
      JsonNode result = reply.get("result");
      Object value = result.isNull() ? null : Json.convert(result, javaType(type));
      return new Reply(id, true, new Answer<>(shaped(value, type), seq), null);
    } catch (IllegalArgumentException | JsonProcessingException e) {
      String problem = "the daemon's result is not what this client's level declares: ";
      BackscrollException unreadable = Errors.internal(problem + e.getMessage());
      return new Reply(id, true, null, unreadable);
    }
  }

  /** What a result of a type is to the caller; null only where nothing is declared. */
  private static Object shaped(Object value, ResultType type) throws JsonProcessingException {
    boolean isExpected =
        switch (type.shape()) {
          case NOTHING -> value == null;
          case ONE, LIST -> value != null;
          case OPTIONAL, ANYTHING -> true;
        };
    if (!isExpected) {
      throw new UnexpectedResult(value == null ? "it is null" : "it is not null");
    }
    return type.shape() == ResultType.Shape.OPTIONAL ? Optional.ofNullable(value) : value;
  }

  private static JavaType javaType(ResultType type) {
    return JAVA_TYPES.computeIfAbsent(
        type,
        each ->
            switch (each.shape()) {
              case LIST -> Json.listOf(each.type());
              case NOTHING -> Json.of(Object.class);
              default -> Json.of(each.type());
            });
  }

  private static BackscrollException exceptionFrom(JsonNode error) {
    String code = error.path("code").asText("internal");
    JsonNode details = error.path("details");
    return ErrorTable.exceptionFor(
        new ErrorReply(
            code,
            error.path("message").asText(code),
            error.path("fault").asText("daemon"),
            error.path("retryable").asBoolean(),
            details.isObject() ? details(details) : null));
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> details(JsonNode details) {
    return Json.convert(details, Map.class);
  }

  /** A result is null where it may not be, or the other way round. */
  private static final class UnexpectedResult extends JsonProcessingException {
    private static final long serialVersionUID = 1L;

    UnexpectedResult(String message) {
      super(message);
    }
  }
}
