package backscroll;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.UnavailableException;
import backscroll.requests.GetUser;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.parallel.Isolated;

/** The threads of a client. No other test runs meanwhile. */
@Isolated
class ThreadsTest {
  @RegisterExtension final Scene scene = new Scene();

  /**
   * A client has one daemon thread, also with feeds, which has ended when the client was closed.
   */
  @Test
  void clientHasOneThreadUntilItIsClosed() throws Exception {
    Path dataDir = scene.daemon().dataDir;
    Set<Thread> before = Thread.getAllStackTraces().keySet();
    Client client = Client.builder().dataDir(dataDir).connect();
    client.ping();
    client.watch(GetUser.of("u")).iterator().next();
    Set<Thread> made = new HashSet<>(Thread.getAllStackTraces().keySet());
    made.removeAll(before);
    assertEquals(1, made.size());
    assertTrue(made.stream().allMatch(Thread::isDaemon));
    client.close();
    assertTrue(made.stream().noneMatch(Thread::isAlive));
    RetryTest.failureOf(UnavailableException.class, client.async().ping());
  }
}
