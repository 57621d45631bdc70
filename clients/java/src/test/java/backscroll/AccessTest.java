package backscroll;

import static backscroll.FakeDaemon.ok;
import static backscroll.FakeDaemon.refusal;
import static backscroll.FakeDaemon.type;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.ForbiddenException;
import backscroll.errors.InvalidException;
import backscroll.errors.UnauthenticatedException;
import backscroll.errors.UnavailableException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Who is calling: tokens, and whether what answers is the daemon. */
class AccessTest {
  private static final Duration SHORT = Duration.ofMillis(300);

  @RegisterExtension final Scene scene = new Scene();

  private Client client(String endpoint, String token, String scope, Duration timeout) {
    return scene.closed(
        Client.builder().endpoint(endpoint).token(token).scope(scope).timeout(timeout).connect());
  }

  /** A token without the right or the scope is forbidden; one that was revoked is not known. */
  @Test
  void tokenWithoutRightOrScopeIsForbidden() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    String dataDir = daemon.dataDir.toString();
    String token =
        Scene.backscroll(
            "token", "create", "bot", "--right", "read", "--scope", "ada", "--data-dir", dataDir);
    Client client = client(daemon.endpoint(), token, "ada", Scene.LONG);
    assertEquals(List.of(), client.listUsers());
    assertThrows(ForbiddenException.class, () -> client.saveMessage(Scene.message(1)));
    Client elsewhere = client(daemon.endpoint(), token, "bob", Scene.LONG);
    assertThrows(ForbiddenException.class, elsewhere::listUsers);

    Scene.backscroll("token", "revoke", "bot", "--data-dir", dataDir);
    assertThrows(UnauthenticatedException.class, client::listUsers);
    Client after = client(daemon.endpoint(), token, "ada", Scene.LONG);
    UnauthenticatedException error = assertThrows(UnauthenticatedException.class, after::listUsers);
    assertTrue(error.getMessage().contains("does not know the token \"bot\": it was revoked"));
  }

  /** A token that may write is not one that may administer. */
  @Test
  void tokenThatMayWriteMayNotAdminister() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    String dataDir = daemon.dataDir.toString();
    String token =
        Scene.backscroll("token", "create", "bot", "--right", "write", "--data-dir", dataDir);
    Client client = client(daemon.endpoint(), token, "default", Scene.LONG);
    client.saveMessage(Scene.message(1));
    assertThrows(ForbiddenException.class, client::getLog);
    assertThrows(ForbiddenException.class, client::deleteScope);
    assertThrows(ForbiddenException.class, client::listTokens);
  }

  /** Without a token it says where to get one; a token that is none is refused. */
  @Test
  void withoutTokenItSaysWhereToGetOne() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    Path elsewhere = scene.directory();
    Client client =
        scene.closed(
            Client.builder()
                .endpoint(daemon.endpoint())
                .dataDir(elsewhere)
                .timeout(Scene.LONG)
                .connect());
    UnauthenticatedException error = assertThrows(UnauthenticatedException.class, client::ping);
    assertTrue(
        error.getMessage().matches("there is no token for tcp:.*`backscroll token create`.*"));
    Client bad = client(daemon.endpoint(), "line\nbreak", "default", Scene.LONG);
    assertThrows(InvalidException.class, bad::ping);
  }

  /** A wrong token is not sent: whatever answers cannot prove that it knows it. */
  @Test
  void wrongTokenIsNotSent() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    Client client = client(daemon.endpoint(), "wrong", "default", SHORT);
    UnavailableException error = assertThrows(UnavailableException.class, client::ping);
    assertTrue(error.getMessage().contains("did not prove that it knows the token"));
  }

  /** An impostor on the old port gets neither token nor requests. */
  @Test
  void impostorOnTheOldPortGetsNothing() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    String endpoint = daemon.endpoint();
    String token = daemon.ready().get("token").textValue();
    Client client = scene.closed(Client.builder().dataDir(daemon.dataDir).timeout(SHORT).connect());
    client.saveMessage(Scene.message(1));
    daemon.kill();
    int port = Integer.parseInt(Address.portOf(endpoint));
    Map<String, Object> proof = Map.of("proof", "0".repeat(64), "endpoints", List.of(endpoint));
    FakeDaemon impostor =
        scene.fakeOnPort(
            port, (request, peer) -> ok(request, type(request).equals("hello") ? proof : null));
    UnavailableException error =
        assertThrows(
            UnavailableException.class, () -> client.saveMessage(Scene.message(2, "a secret")));
    assertTrue(error.getMessage().contains("it is another program"));
    assertFalse(impostor.bodies.isEmpty());
    for (String body : impostor.bodies) {
      assertTrue(body.contains("\"type\":\"hello\"") && !body.contains("auth"));
      assertFalse(body.contains(token) || body.contains("secret"));
    }
    impostor.close();

    daemon.start();
    client.with(RequestOptions.of().withTimeout(Scene.LONG)).saveMessage(Scene.message(2));
  }

  /** A program that passes on the daemon's real proof gets neither token nor requests. */
  @Test
  void relayOfRealProofGetsNothing() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    String token = daemon.ready().get("token").textValue();
    Relay relay = scene.closed(Relay.tcp(daemon.endpoint()));
    StringBuffer seen = new StringBuffer();
    relay.sends =
        text -> {
          seen.append(text);
          return text;
        };
    Client client = client("tcp://127.0.0.1:" + relay.port(), token, "default", SHORT);
    UnavailableException error =
        assertThrows(
            UnavailableException.class, () -> client.saveMessage(Scene.message(1, "a secret")));
    assertTrue(error.getMessage().contains("did not prove that it knows the token"));
    assertTrue(seen.indexOf("\"type\":\"hello\"") >= 0);
    assertTrue(seen.indexOf(token) < 0 && seen.indexOf("secret") < 0);
  }

  /** A daemon that refuses hello, or proves nothing, is not trusted. */
  @Test
  void daemonThatProvesNothingIsNotTrusted() throws Exception {
    FakeDaemon refusing =
        scene.fakeOnPort(0, (request, peer) -> refusal(request, "unknown-operation", "caller"));
    Client client = client(refusing.endpoint(), "bot.secret", "default", SHORT);
    UnavailableException error = assertThrows(UnavailableException.class, client::ping);
    assertTrue(error.getMessage().contains("and answered \"unknown-operation\""));
    assertTrue(refusing.bodies.stream().noneMatch(body -> body.contains("secret")));

    Map<String, Object> strange =
        Map.of("proof", "0".repeat(64), "endpoints", List.of(Map.of("a", 1), 5));
    FakeDaemon lying = scene.fakeOnPort(0, (request, peer) -> ok(request, strange));
    Client other = client(lying.endpoint(), "bot.secret", "default", SHORT);
    assertThrows(UnavailableException.class, other::ping);
  }

  /** A program that speaks no ZMTP is told apart. */
  @Test
  void programWithoutZmtpIsToldApart() throws Exception {
    ServerSocket server = scene.closed(new ServerSocket(0, 5, InetAddress.getLoopbackAddress()));
    Thread thread = new Thread(() -> answerHttp(server));
    thread.setDaemon(true);
    thread.start();
    String endpoint = "tcp://127.0.0.1:" + server.getLocalPort();
    Client client = client(endpoint, "token", "default", SHORT);
    UnavailableException error = assertThrows(UnavailableException.class, client::ping);
    String problem = "does not speak ZMTP 3: it is no backscroll daemon";
    assertTrue(error.getMessage().contains(problem), error.getMessage());
  }

  private static void answerHttp(ServerSocket server) {
    try {
      while (true) {
        try (Socket socket = server.accept()) {
          byte[] answer = "HTTP/1.1 400 Bad Request\r\n\r\n".getBytes(StandardCharsets.US_ASCII);
          socket.getOutputStream().write(answer);
          socket.getInputStream().readNBytes(64);
        }
      }
    } catch (IOException e) {
      // it was closed
    }
  }
}
