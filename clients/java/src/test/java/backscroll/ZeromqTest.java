package backscroll;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.zeromq.SocketType;
import org.zeromq.ZContext;
import org.zeromq.ZMQ;

/** An ordinary ZeroMQ library: the daemon can be used without this client. */
class ZeromqTest {
  @RegisterExtension final Scene scene = new Scene();

  /** JeroMQ over tcp: a command has its reply, and the same bytes again have the same reply. */
  @Test
  void jeromqHasRoundTripAndIdenticalRetry() throws Exception {
    TestDaemon daemon = scene.daemon(Scene.TCP);
    ObjectNode request =
        JsonNodeFactory.instance
            .objectNode()
            .put("id", "mine")
            .put("type", "create-user")
            .put("auth", daemon.ready().get("token").textValue());
    request.putObject("payload").put("pubkey", "key");
    byte[] body = request.toString().getBytes(StandardCharsets.UTF_8);
    try (ZContext context = new ZContext()) {
      byte[] first = exchanged(context, daemon.endpoint(), body);
      JsonNode reply = Vectors.parsed(new String(first, StandardCharsets.UTF_8));
      assertEquals("mine", reply.get("id").textValue());
      assertTrue(reply.get("ok").booleanValue());
      assertEquals("key", reply.get("result").get("pubkey").textValue());
      assertArrayEquals(first, exchanged(context, daemon.endpoint(), body));
    }
  }

  /** The reply to a request, over a connection of its own. */
  private static byte[] exchanged(ZContext context, String endpoint, byte[] body) {
    try (ZMQ.Socket socket = context.createSocket(SocketType.DEALER)) {
      socket.setReceiveTimeOut((int) Scene.LONG.toMillis());
      socket.setLinger(0);
      socket.connect(endpoint);
      socket.send(body);
      return socket.recv();
    }
  }
}
