package backscroll;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * This client's runner of the conformance vectors: one JSON line for each vector.
 *
 * <pre>
 * java -cp target/classes:target/test-classes:target/dependencies/* backscroll.VectorRunner DIRECTORY
 * </pre>
 */
final class VectorRunner implements AutoCloseable {
  /** Plays a vector of a file; returns what is not as expected. */
  private interface Player {
    String play(JsonNode vector, JsonNode file) throws Exception;
  }

  /** Where vectors stand, the keys that they may have, and what plays one. */
  private record VectorList(String set, String list, String keys, Player player) {}

  private static final Logger LOGGER = Logger.getLogger("backscroll");

  private final VectorContext context = new VectorContext();
  private RefusalVectors refusals;

  private VectorRunner() throws IOException {}

  private List<VectorList> lists() {
    return List.of(
        new VectorList(
            "codec",
            "requests",
            "type json msgpack canonical error",
            (each, file) -> CodecVectors.playRequest(each, context)),
        new VectorList(
            "codec",
            "replies",
            "type json msgpack result kept error invalid",
            (each, file) -> CodecVectors.playReply(each)),
        new VectorList(
            "canonical",
            "vectors",
            "type json canonical salt digest",
            (each, file) -> CodecVectors.playCanonical(each, context)),
        new VectorList(
            "hello", "vectors", "token nonce endpoints proof", (each, file) -> playHello(each)),
        new VectorList(
            "refusals",
            "vectors",
            "before json hex expand id error",
            (each, file) -> playRefusal(each)),
        new VectorList(
            "zmtp", "vectors", "connections", (each, file) -> ZmtpVectors.play(each, context)),
        new VectorList(
            "retry",
            "table",
            "state event to outcome",
            (each, file) -> RetryVectors.playRow(each, file.get("states"))),
        new VectorList(
            "retry", "sequences", "events", (each, file) -> RetryVectors.playSequence(each)),
        new VectorList(
            "scenarios", "vectors", "steps", (each, file) -> ScenarioVectors.play(each, context)));
  }

  private String playHello(JsonNode vector) {
    String proof =
        Greeting.proofOf(
            vector.get("token").textValue(),
            vector.get("nonce").textValue(),
            Vectors.texts(vector.get("endpoints")));
    return Vectors.difference("proof", vector.get("proof").textValue(), proof);
  }

  private String playRefusal(JsonNode vector) throws IOException {
    if (refusals == null) {
      refusals = new RefusalVectors(context.endpoint());
    }
    return refusals.play(vector);
  }

  /** What is not as expected about a vector. */
  private static String played(VectorList list, JsonNode vector, JsonNode file) {
    try {
      List<String> keys = new ArrayList<>(List.of(list.keys().split(" ")));
      keys.addAll(List.of("name", "needs"));
      Vectors.checkKeys(vector, keys);
      return Vectors.lackingFor(vector).isEmpty() ? list.player().play(vector, file) : "";
    } catch (Exception e) {
      return e.toString();
    }
  }

  private void run(Path directory, PrintStream out) throws IOException {
    for (VectorList list : lists()) {
      JsonNode file = Vectors.load(directory, list.set());
      for (JsonNode vector : file.get(list.list())) {
        String why = played(list, vector, file);
        List<String> lacking = Vectors.lackingFor(vector);
        ObjectNode result = JsonNodeFactory.instance.objectNode().put("set", list.set());
        result.set("name", vector.get("name"));
        result.put("ok", lacking.isEmpty() ? Boolean.valueOf(why.isEmpty()) : null);
        result.put("why", lacking.isEmpty() ? why : "needs " + String.join(", ", lacking));
        out.println(result);
      }
    }
  }

  @Override
  public void close() throws IOException {
    if (refusals != null) {
      refusals.close();
    }
    context.close();
  }

  public static void main(String[] arguments) throws IOException {
    LOGGER.setLevel(Level.OFF); // the losses are part of the vectors
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    try (VectorRunner runner = new VectorRunner()) {
      runner.run(Path.of(arguments[0]), out);
    }
  }
}
