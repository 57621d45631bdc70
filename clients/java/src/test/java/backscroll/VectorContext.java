package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.annotation.JsonValue;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.util.RawValue;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** What the sets share: a daemon that is started when it is first needed, and clients of it. */
final class VectorContext implements AutoCloseable {
  static final Duration TIMEOUT = Duration.ofSeconds(10);

  final Path directory;
  private final Map<String, Client> clients = new HashMap<>();
  private Process daemon;
  private String endpoint;
  private int scopes;

  VectorContext() throws IOException {
    directory = Files.createTempDirectory("backscroll-vectors-");
  }

  /** The address of the daemon. */
  String endpoint() throws IOException {
    if (endpoint == null) {
      endpoint = start();
    }
    return endpoint;
  }

  /** The name of a scope that was not used yet. */
  String newScope() {
    return "scope-" + ++scopes;
  }

  /** A client of a scope, which lives as long as this. */
  Client client(String scope) throws IOException {
    Client client = clients.get(scope);
    if (client == null) {
      client = Client.builder().endpoint(endpoint()).scope(scope).timeout(TIMEOUT).connect();
      clients.put(scope, client);
    }
    return client;
  }

  @Override
  public void close() throws IOException {
    clients.values().forEach(Client::close);
    if (daemon != null) {
      daemon.getOutputStream().close();
      daemon.onExit().join();
    }
    try (Stream<Path> files = Files.walk(directory)) {
      for (Path each : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.delete(each);
      }
    }
  }

  private String start() throws IOException {
    String serve = System.getenv().getOrDefault("CONFORMANCE_SERVE", "backscroll serve");
    Path dataDir = directory.resolve("data");
    String script = "exec " + serve + " --data-dir \"$0\" --exit-with-parent"; // words of a shell
    daemon =
        new ProcessBuilder("sh", "-c", script, dataDir.toString())
            .redirectError(ProcessBuilder.Redirect.DISCARD)
            .start();
    if (daemon.inputReader().readLine() == null) {
      throw new IOException("the daemon (" + serve + ") ended with " + daemon.onExit().join());
    }
    JsonNode ready = Json.tree(Files.readAllBytes(dataDir.resolve("endpoint.json")));
    return ready.get("endpoints").get(0).textValue();
  }

  /** A request as the vectors have it, which its record has no form for. */
  private record Raw(String operation, @JsonValue RawValue payload) implements Request<Object> {
    Raw(String operation, String json) {
      this(operation, new RawValue(json));
    }
  }

  /** Any request: the record of its operation, or its JSON where that does not fit. */
  static Request<?> request(String type, String json) {
    JsonNode payload;
    try {
      payload = Json.tree(json.getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      return new Raw(type, json); // Jackson refuses to read it, but the daemon has to refuse it
    }
    String name =
        Stream.of(type.split("-"))
            .map(each -> each.substring(0, 1).toUpperCase() + each.substring(1))
            .collect(Collectors.joining());
    try {
      Object request = Json.convert(payload, Class.forName("backscroll.requests." + name));
      boolean isSame = namesInUpdates(Vectors.plain(request)).equals(namesInUpdates(payload));
      return isSame ? (Request<?>) request : new Raw(type, json);
    } catch (ClassNotFoundException | IllegalArgumentException e) {
      return new Raw(type, json);
    }
  }

  /** A null that a record for updates has no form for is lost in it. */
  private static List<String> namesInUpdates(JsonNode payload) {
    return Vectors.names(payload.path("updates"));
  }

  static Answer<?> answer(Client client, String type, String json, String requestId) {
    return client.answer(request(type, json), RequestOptions.of().withRequestId(requestId));
  }
}
