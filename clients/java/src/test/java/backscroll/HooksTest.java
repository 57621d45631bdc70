package backscroll;

import static backscroll.FakeDaemon.ok;
import static backscroll.FakeDaemon.pong;
import static backscroll.FakeDaemon.refusal;
import static backscroll.FakeDaemon.type;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.records.User;
import java.util.List;
import java.util.ResourceBundle;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** What an application can attach: a logger, and the trace context of its spans. */
class HooksTest {
  @RegisterExtension final Scene scene = new Scene();

  /** A logger that keeps its lines. */
  private static final class Recorder implements System.Logger {
    private final List<String> lines = new CopyOnWriteArrayList<>();

    @Override
    public String getName() {
      return "recorder";
    }

    @Override
    public boolean isLoggable(Level level) {
      return true;
    }

    @Override
    public void log(Level level, ResourceBundle bundle, String message, Throwable thrown) {
      lines.add(level + " " + message);
    }

    @Override
    public void log(Level level, ResourceBundle bundle, String format, Object... parameters) {
      lines.add(level + " " + format);
    }
  }

  /** The logger gets outcomes and connections, and nothing of what people wrote. */
  @Test
  void loggerGetsOutcomesAndConnections() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) ->
                switch (type(request)) {
                  case "save-user" -> refusal(request, "busy", "daemon");
                  case "get-room" -> refusal(request, "not-found", "caller");
                  default -> ok(request);
                });
    Recorder recorder = new Recorder();
    Client client =
        scene.closed(Client.builder().endpoint(fake.endpoint()).logger(recorder).connect());
    client
        .with(RequestOptions.of().withRequestId("first"))
        .saveMessage(Scene.message(1, "a secret"));
    assertThrows(CallerException.class, () -> client.getRoom("r1"));
    User user = User.of("ada", "ada", "ada").withDisplayName("a secret");
    assertThrows(DaemonException.class, () -> client.saveUser(user));
    fake.cut();
    Scene.waitUntil(() -> recorder.lines.size() == 5);
    assertEquals("DEBUG connected", recorder.lines.get(0));
    assertTrue(
        recorder
            .lines
            .get(1)
            .matches("DEBUG save-message: ok, seq 1 \\(request first, \\d+ ms\\)"));
    assertTrue(recorder.lines.get(2).startsWith("DEBUG get-room: not-found (request "));
    assertTrue(recorder.lines.get(3).startsWith("WARNING save-user: busy: refused: busy"));
    assertTrue(recorder.lines.get(4).startsWith("WARNING not connected: unavailable: no daemon"));
    assertFalse(recorder.lines.toString().contains("a secret"));
    client.close();
    assertEquals(5, recorder.lines.size());
  }

  /** A logger that fails harms no request. */
  @Test
  void loggerThatFailsHarmsNoRequest() throws Exception {
    System.Logger failing =
        new System.Logger() {
          @Override
          public String getName() {
            return "failing";
          }

          @Override
          public boolean isLoggable(Level level) {
            return true;
          }

          @Override
          public void log(Level level, ResourceBundle bundle, String message, Throwable thrown) {
            throw new IllegalStateException("a bug");
          }

          @Override
          public void log(Level level, ResourceBundle bundle, String format, Object... values) {
            throw new IllegalStateException("a bug");
          }
        };
    FakeDaemon fake = scene.fake((request, peer) -> pong(request));
    Client client =
        scene.closed(Client.builder().endpoint(fake.endpoint()).logger(failing).connect());
    assertTrue(client.ping().pong());
    fake.cut();
    assertTrue(client.ping().pong());
  }

  /** A request has its own trace context, or else the client's at that moment. */
  @Test
  void requestHasItsTraceContext() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> pong(request));
    AtomicReference<String> span = new AtomicReference<>();
    Client client =
        scene.closed(Client.builder().endpoint(fake.endpoint()).traceparent(span::get).connect());
    client.ping();
    span.set("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    client.ping();
    String own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.with(RequestOptions.of().withTraceparent(own)).ping();
    assertEquals(List.of("", span.get(), own), fake.all("/traceparent"));
  }
}
