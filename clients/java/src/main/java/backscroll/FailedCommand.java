package backscroll;

import java.util.List;
import java.util.Map;

/**
 * One command of a batch that cannot be executed.
 *
 * @param index its place in the batch, from 0
 * @param code the code of its error
 * @param message what is wrong; empty where the list became too long for messages
 * @param path the path of the field that it is about, or empty
 */
public record FailedCommand(int index, String code, String message, String path) {
  static List<FailedCommand> listedIn(Object failures) {
    if (!(failures instanceof List<?> list)) {
      return List.of();
    }
    return list.stream()
        .map(each -> each instanceof Map<?, ?> fields ? fields : Map.of())
        .map(FailedCommand::from)
        .toList();
  }

  private static FailedCommand from(Map<?, ?> fields) {
    int index = fields.get("index") instanceof Number number ? number.intValue() : -1;
    return new FailedCommand(
        index, text(fields.get("code")), text(fields.get("message")), text(fields.get("path")));
  }

  private static String text(Object value) {
    return value instanceof String text ? text : "";
  }
}
