package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.stream.StreamSupport;

/** The files of {@code schema/vectors}, whose README says what they mean, and how to compare. */
final class Vectors {
  /** What this client lacks: it has JSON only. */
  private static final Set<String> LACKING = Set.of("msgpack");

  private Vectors() {}

  static JsonNode load(Path directory, String set) throws IOException {
    return Json.tree(Files.readAllBytes(directory.resolve(set + ".json")));
  }

  /** What a vector needs and this language lacks. */
  static List<String> lackingFor(JsonNode vector) {
    return texts(vector.path("needs")).stream().filter(LACKING::contains).toList();
  }

  /** Throws if a vector or a step has a key that this runner does not know. */
  static void checkKeys(JsonNode value, List<String> known) {
    List<String> unknown = new ArrayList<>(names(value));
    unknown.removeAll(known);
    if (!unknown.isEmpty()) {
      throw new IllegalArgumentException("unknown keys " + unknown);
    }
  }

  static List<String> names(JsonNode object) {
    List<String> names = new ArrayList<>();
    object.fieldNames().forEachRemaining(names::add);
    Collections.sort(names);
    return names;
  }

  static List<String> texts(JsonNode list) {
    return StreamSupport.stream(list.spliterator(), false).map(JsonNode::asText).toList();
  }

  /** What differs, in words; empty if nothing does. */
  static String difference(String what, JsonNode expected, JsonNode actual) {
    if (same(expected).equals(same(actual))) {
      return "";
    }
    return what + ": expected " + expected + ", got " + actual;
  }

  static String difference(String what, Object expected, Object actual) {
    return expected.equals(actual) ? "" : what + ": expected " + expected + ", got " + actual;
  }

  /** The tree as it is read from its text, in which equal numbers have one type. */
  private static JsonNode same(JsonNode tree) {
    return tree.isMissingNode() ? tree : parsed(tree.toString());
  }

  static JsonNode parsed(String text) {
    try {
      return Json.tree(text.getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** A result as the vectors have it: bytes are base64, and what there is none of is null. */
  static JsonNode plain(Object result) {
    Object value = result instanceof Optional<?> optional ? optional.orElse(null) : result;
    if (value instanceof byte[] bytes) {
      value = Base64.getEncoder().encodeToString(bytes);
    }
    return value == null ? parsed("null") : Json.convert(value, JsonNode.class);
  }

  /** A text with its placeholders replaced by what they stand for. */
  static String expanded(JsonNode vector) {
    String text = vector.get("json").textValue();
    for (String name : names(vector.path("expand"))) {
      JsonNode part = vector.get("expand").get(name);
      text = text.replace(name, part.get(0).textValue().repeat(part.get(1).intValue()));
    }
    return text;
  }

  /** The first that is not empty. */
  static String first(String... differences) {
    for (String each : differences) {
      if (!each.isEmpty()) {
        return each;
      }
    }
    return "";
  }
}
