package backscroll;

import backscroll.internal.Json;
import backscroll.records.Message;
import backscroll.requests.GetMessagePage;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Function;
import java.util.stream.IntStream;

/**
 * What the benchmark and the test of all languages do with this client.
 *
 * <pre>
 * java -cp target/classes:target/test-classes:target/dependencies/* backscroll.Driver ENDPOINT
 * </pre>
 *
 * <p>Each line of standard input is an order, a JSON object; so is the answer to it, on standard
 * output.
 */
final class Driver {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final int PAGE = 50;
  private static final double NANOS_PER_SECOND = 1e9;

  private final Client client;
  private List<Message> messages = List.of();
  private List<String> visits = List.of();
  private List<String> rooms = List.of();

  private Driver(Client client) {
    this.client = client;
  }

  public static void main(String[] arguments) throws IOException {
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    BufferedReader orders =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (Client client = Client.builder().endpoint(arguments[0]).timeout(TIMEOUT).connect()) {
      Driver driver = new Driver(client);
      for (String line = orders.readLine(); line != null; line = orders.readLine()) {
        out.println(driver.execute(Vectors.parsed(line)));
      }
    }
  }

  private ObjectNode execute(JsonNode order) throws IOException {
    int inFlight = order.path("inFlight").intValue();
    return switch (order.get("do").textValue()) {
      case "load" -> load(Path.of(order.get("path").textValue()));
      case "ping" -> ping(order.get("count").intValue());
      case "save" -> timed(inFlight, messages, message -> client.async().saveMessage(message));
      case "read" -> timed(inFlight, visits, this::newest);
      case "readBack" -> readBack();
      default -> throw new IllegalArgumentException("unknown order " + order);
    };
  }

  private ObjectNode load(Path path) throws IOException {
    JsonNode work = Json.tree(Files.readAllBytes(path));
    messages = new ArrayList<>();
    work.get("messages").forEach(each -> messages.add(Json.convert(each, Message.class)));
    visits = Vectors.texts(work.get("visits"));
    rooms = Vectors.texts(work.get("rooms"));
    return JsonNodeFactory.instance.objectNode();
  }

  private ObjectNode ping(int count) {
    long begun = System.nanoTime();
    for (int number = 0; number < count; number++) {
      client.ping();
    }
    return seconds(begun);
  }

  private CompletableFuture<List<Message>> newest(String roomId) {
    GetMessagePage page = GetMessagePage.of(roomId).withLimit(PAGE);
    return client.async().getMessagePage(page).thenApply(each -> each.messages());
  }

  private ObjectNode readBack() {
    ObjectNode answer = JsonNodeFactory.instance.objectNode();
    List<CompletableFuture<List<Message>>> pages = rooms.stream().map(this::newest).toList();
    List<List<Message>> read = pages.stream().map(CompletableFuture::join).toList();
    answer.set("pages", Json.convert(read, JsonNode.class));
    return answer;
  }

  /** How long it takes to ask for all items with so many of them in flight. */
  private static <T> ObjectNode timed(
      int inFlight, List<T> items, Function<T, CompletableFuture<?>> ask) {
    long begun = System.nanoTime();
    ConcurrentLinkedQueue<T> left = new ConcurrentLinkedQueue<>(items);
    CompletableFuture<?>[] turns =
        IntStream.range(0, inFlight)
            .mapToObj(number -> inTurn(left, ask))
            .toArray(CompletableFuture<?>[]::new);
    CompletableFuture.allOf(turns).join();
    return seconds(begun);
  }

  private static <T> CompletableFuture<?> inTurn(
      ConcurrentLinkedQueue<T> left, Function<T, CompletableFuture<?>> ask) {
    T item = left.poll();
    if (item == null) {
      return CompletableFuture.completedFuture(null);
    }
    return ask.apply(item).thenCompose(done -> inTurn(left, ask));
  }

  private static ObjectNode seconds(long begun) {
    double seconds = (System.nanoTime() - begun) / NANOS_PER_SECOND;
    return JsonNodeFactory.instance.objectNode().put("seconds", seconds);
  }
}
