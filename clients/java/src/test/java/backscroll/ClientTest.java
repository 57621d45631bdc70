package backscroll;

import static backscroll.FakeDaemon.ok;
import static backscroll.FakeDaemon.pong;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.ConflictException;
import backscroll.errors.InvalidException;
import backscroll.errors.NotFoundException;
import backscroll.errors.TooLargeException;
import backscroll.errors.UnavailableException;
import backscroll.records.Channel;
import backscroll.records.Message;
import backscroll.records.MessageUpdates;
import backscroll.records.User;
import backscroll.requests.CreateCategory;
import backscroll.requests.CreateUser;
import backscroll.requests.DeleteMessage;
import backscroll.requests.GetChanges;
import backscroll.requests.SaveMessage;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What a client does with a real daemon. */
class ClientTest {
  @RegisterExtension final Scene scene = new Scene();

  /** What is saved is read back, over ipc and tcp. */
  @ParameterizedTest
  @ValueSource(strings = {"ipc", "tcp"})
  void whatIsSavedIsReadBack(String carrier) throws Exception {
    TestDaemon daemon = scene.daemon(carrier.equals("tcp") ? Scene.TCP : new String[0]);
    Client client = scene.client(daemon.dataDir);
    Map<String, Object> nested = Map.of("text", "é\0");
    Map<String, Object> metadata =
        Map.of("list", Arrays.asList(1, 1.5, null, true), "nested", nested, "float", 1.0);
    Message message =
        Scene.message(1, "hello 👋 \u2028")
            .withEditedAt(Instant.ofEpochMilli(253_402_300_799_999L))
            .withRevision((1L << 53) - 1)
            .withMetadata(metadata)
            .withReactions(List.of());
    client.saveMessage(message);
    assertEquals(List.of(message), client.getMessagePage("r1").messages());
  }

  /** A name in free JSON may be as long as the daemon allows. */
  @Test
  void nameInFreeJsonMayBeLong() throws Exception {
    Client client = scene.client();
    Message message = Scene.message(1).withMetadata(Map.of("x".repeat(500_000), "y"));
    client.saveMessage(message);
    assertEquals(message.metadata(), client.getMessageById("m1").orElseThrow().metadata());
  }

  /** Times are kept to the millisecond, and what is read equals what was saved. */
  @Test
  void timesHaveMilliseconds() {
    Instant time = Instant.parse("2026-01-01T00:00:00.123456789Z");
    Message message = Message.of("m", "r", "", time);
    assertEquals(Instant.parse("2026-01-01T00:00:00.123Z"), message.timestamp());
  }

  /** In updates a field is cleared, set, or stays. */
  @Test
  void updatesHaveThreeStates() throws Exception {
    Client client = scene.client();
    Message message = Scene.message(1).withSenderName("Ada").withMetadata(Map.of("a", 1));
    client.saveMessage(message);
    client.updateMessage("m1", MessageUpdates.of().clearSenderName().withContent("new"));
    Message read = client.getMessageById("m1").orElseThrow();
    assertNull(read.senderName());
    MessageUpdates none = MessageUpdates.of();
    Exception error = assertThrows(NullPointerException.class, () -> none.withSenderName(null));
    assertTrue(error.getMessage().endsWith("clear the field"));
    assertEquals(Map.of("a", 1), read.metadata());
    assertEquals("new", read.content());
    assertEquals(Optional.empty(), client.getMessageById("none"));
  }

  /** An error has the class of its code, its path, and the stack of whoever waited for it. */
  @Test
  void errorHasTheClassOfItsCode() throws Exception {
    Client client = scene.client();
    MessageUpdates updates = MessageUpdates.of().withContent("x");
    NotFoundException missing =
        assertThrows(NotFoundException.class, () -> client.updateMessage("none", updates));
    assertEquals("not-found", missing.code());
    assertFalse(missing.isRetryable());
    assertTrue(
        Arrays.stream(missing.getStackTrace())
            .anyMatch(each -> each.getMethodName().contains("errorHasTheClassOfItsCode")));
    client.saveMessage(Scene.message(1));
    client.deleteMessage("m1");
    assertThrows(ConflictException.class, () -> client.updateMessage("m1", updates));
    Message late = Scene.message(2).withEditedAt(Instant.ofEpochMilli(-1));
    InvalidException invalid = assertThrows(InvalidException.class, () -> client.saveMessage(late));
    assertEquals("$.payload.message.editedAt", invalid.details().get("path"));
  }

  /** An error that was serialized says the same as before. */
  @Test
  void errorIsSerialized() throws Exception {
    Client client = scene.client();
    List<BatchCommand<?>> failing = List.of(DeleteMessage.of("none"));
    NotFoundException error = assertThrows(NotFoundException.class, () -> client.batch(failing));
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    new ObjectOutputStream(bytes).writeObject(error);
    InputStream in = new ByteArrayInputStream(bytes.toByteArray());
    Object read = new ObjectInputStream(in).readObject();
    NotFoundException same = assertInstanceOf(NotFoundException.class, read);
    assertEquals(error.getMessage(), same.getMessage());
    assertEquals("not-found", same.code());
    assertEquals(error.details(), same.details());
    assertEquals(error.failures(), same.failures());
  }

  /** A batch takes effect as a whole, gives results of its commands' types, or says which fail. */
  @Test
  void batchSaysWhichOfItsCommandsFail() throws Exception {
    Client client = scene.client();
    List<BatchCommand<?>> failing =
        List.of(SaveMessage.of(Scene.message(1)), DeleteMessage.of("none"));
    NotFoundException error = assertThrows(NotFoundException.class, () -> client.batch(failing));
    assertEquals(1, error.failures().size());
    assertEquals(1, error.failures().get(0).index());
    assertEquals("not-found", error.failures().get(0).code());
    assertEquals(Optional.empty(), client.getMessageById("m1"));

    client.saveRoom(backscroll.records.Room.of("default", "d"));
    List<Object> results =
        client.batch(
            List.of(
                CreateUser.of("key"),
                CreateCategory.of("c"),
                DeleteMessage.of("m").withArrival(backscroll.records.Arrival.ANY_ORDER)));
    assertInstanceOf(User.class, results.get(0));
    assertInstanceOf(backscroll.records.Category.class, results.get(1));
    assertNull(results.get(2));
  }

  /**
   * A message that was read can be saved again with another content: what only replies have is left
   * out.
   */
  @Test
  void whatWasReadCanBeSavedAgain() throws Exception {
    Client client = scene.client();
    client.saveMessage(Scene.message(1));
    client.saveAttachment(backscroll.records.Attachment.of("a1", "m1", "photo.jpg"));
    Message read =
        client
            .getMessagePage(backscroll.requests.GetMessagePage.of("r1").withAttachments(true))
            .messages()
            .get(0);
    assertEquals(1, read.attachments().size());
    client.saveMessage(read.withContent("again"));
    assertEquals("again", client.getMessageById("m1").orElseThrow().content());
  }

  /** The same command in another form is the same command. */
  @Test
  void sameCommandInAnotherForm() throws Exception {
    Path dataDir = scene.daemon().dataDir;
    Client first = scene.client(dataDir);
    Client second = scene.client(dataDir);
    RequestOptions mine = RequestOptions.of().withRequestId("mine");
    Map<String, Object> metadata = new LinkedHashMap<>();
    metadata.put("b", 1);
    metadata.put("a", List.of(1, 2));
    Map<String, Object> reordered = new LinkedHashMap<>();
    reordered.put("a", List.of(1, 2));
    reordered.put("b", 1);
    Message message = Scene.message(1);
    Answer<Void> saved = first.answer(SaveMessage.of(message.withMetadata(metadata)), mine);
    assertEquals(saved, second.answer(SaveMessage.of(message.withMetadata(reordered)), mine));
    assertThrows(ConflictException.class, () -> second.answer(SaveMessage.of(message), mine));
  }

  /** What JSON has no form for is refused before it is sent, with its path. */
  @Test
  void whatJsonCannotCarryIsRefused() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> ok(request));
    Client client = scene.client(fake);
    String lone = "cut \ud83d";
    Map<String, Message> refused = new LinkedHashMap<>();
    refused.put(
        "$.payload.message.metadata.list[0].value",
        Scene.message(1).withMetadata(Map.of("list", List.of(Map.of("value", Double.NaN)))));
    refused.put(
        "$.payload.message.linkMetadata.a",
        Scene.message(1).withLinkMetadata(Map.of("a", new Object())));
    refused.forEach(
        (path, message) -> {
          InvalidException error =
              assertThrows(InvalidException.class, () -> client.saveMessage(message), path);
          assertEquals(path, error.details().get("path"));
          RetryTest.failureOf(InvalidException.class, client.async().saveMessage(message));
        });
    Map<String, Object> endless = new LinkedHashMap<>();
    endless.put("again", endless);
    assertThrows(InvalidException.class, () -> client.call("save-user", endless));
    Message large = Scene.message(1, "x".repeat(8 << 20));
    assertThrows(TooLargeException.class, () -> client.saveMessage(large));
    assertThrows(NullPointerException.class, () -> Message.of("m", null, "", Instant.now()));
    for (String id : List.of("", lone, "x".repeat(65))) {
      RequestOptions options = RequestOptions.of().withRequestId(id);
      assertThrows(InvalidException.class, () -> client.with(options).ping());
      assertThrows(InvalidException.class, () -> Client.builder().scope(id.repeat(3)));
    }
    assertEquals(List.of(), fake.bodies);
  }

  /** A lone surrogate is refused wherever it is, and is never sent as another character. */
  @Test
  void loneSurrogateIsRefused() throws Exception {
    Client client = scene.client();
    for (String lone :
        List.of("\ud83d", "cut \ud83d", "\ud83d cut", "\udc4b", "\ud83d\ud83d\udc4b")) {
      Message message = Scene.message(1);
      List<Message> refused =
          List.of(
              message.withContent(lone),
              message.withId(lone),
              message.withMetadata(Map.of("a", lone)),
              message.withMetadata(Map.of(lone, 1)));
      for (Message each : refused) {
        assertThrows(InvalidException.class, () -> client.saveMessage(each));
      }
    }
    assertEquals(List.of(), client.getMessagePage("r1").messages());
    client.saveMessage(Scene.message(1, "whole \ud83d\udc4b"));
    assertEquals("whole 👋", client.getMessageById("m1").orElseThrow().content());
  }

  /** An id makes a command take effect once. */
  @Test
  void idMakesCommandTakeEffectOnce() throws Exception {
    Client client = scene.client();
    RequestOptions mine = RequestOptions.of().withRequestId("mine");
    Answer<User> first = client.answer(CreateUser.of("key"), mine);
    assertEquals(first, client.answer(CreateUser.of("key"), mine));
    assertThrows(ConflictException.class, () -> client.answer(CreateUser.of("another"), mine));
    RequestOptions same = RequestOptions.of().withRequestId("same");
    CompletableFuture<Void> once = client.async(same).saveMessage(Scene.message(1));
    CompletableFuture<Void> twice = client.async(same).saveMessage(Scene.message(1));
    RetryTest.failureOf(InvalidException.class, twice);
    once.join();
  }

  /** Scopes are separate. */
  @Test
  void scopesAreSeparate() throws Exception {
    Path dataDir = scene.daemon().dataDir;
    Client ada = scene.closed(Client.builder().dataDir(dataDir).scope("ada").connect());
    Client bob = scene.closed(Client.builder().dataDir(dataDir).scope("bob").connect());
    ada.saveMessage(Scene.message(1));
    assertEquals(Optional.empty(), bob.getMessageById("m1"));
    assertTrue(ada.getMessageById("m1").isPresent());
  }

  /** Without a daemon it says so, and what to do; addresses that cannot be used are refused. */
  @Test
  void withoutDaemonItSaysWhatToDo() throws Exception {
    Client client =
        Client.builder().dataDir(scene.directory()).timeout(Duration.ofMillis(50)).connect();
    UnavailableException error = assertThrows(UnavailableException.class, client::ping);
    assertTrue(error.isRetryable());
    assertTrue(
        error.getMessage().matches("no daemon is ready in .*: start one with `backscroll serve.*"));
    client.close();
    UnavailableException closed = assertThrows(UnavailableException.class, client::ping);
    assertEquals("the client was closed; nothing was sent", closed.getMessage());
    for (String endpoint :
        List.of(
            "http://127.0.0.1",
            "curve://127.0.0.1:5555",
            "tcp://127.0.0.1:0",
            "tcp://127.0.0.1:65536",
            "tcp://127.0.0.1:x",
            "ipc://")) {
      ClientBuilder builder = Client.builder().endpoint(endpoint);
      assertThrows(InvalidException.class, builder::connect);
    }
  }

  /** An address in the data directory that nobody can connect to is an error of each call. */
  @Test
  void addressThatNobodyCanConnectTo() throws Exception {
    Path dataDir = scene.directory();
    String ready = "{\"endpoints\": [\"tcp://127.0.0.1:99999\"], \"token\": \"a\"}";
    Files.writeString(dataDir.resolve("endpoint.json"), ready);
    Client client = scene.client(dataDir);
    assertThrows(InvalidException.class, client::ping);
    assertThrows(InvalidException.class, client::ping);
  }

  /** What a connection listener throws harms no request; it may call the client, and close it. */
  @Test
  void connectionListenerMayThrowAndCallTheClient() throws Exception {
    AtomicReference<Client> self = new AtomicReference<>();
    AtomicInteger problems = new AtomicInteger();
    ConnectionListener listener =
        new ConnectionListener() {
          @Override
          public void disconnected(BackscrollException problem) {
            if (problems.incrementAndGet() == 3) {
              self.get().close();
            }
            self.get().async().ping();
            throw new IllegalStateException("a bug");
          }
        };
    Client client =
        Client.builder()
            .dataDir(scene.directory())
            .timeout(Scene.LONG)
            .connectionListener(listener)
            .connect();
    self.set(client);
    UnavailableException error = assertThrows(UnavailableException.class, client::ping);
    assertEquals("the client was closed; nothing was sent", error.getMessage());
    assertEquals(3, problems.get());
  }

  /** A client that waits finds a daemon that starts. */
  @Test
  void clientThatWaitsFindsDaemonThatStarts() throws Exception {
    TestDaemon daemon = scene.daemon();
    daemon.kill();
    CompletableFuture<backscroll.records.Pong> waiting =
        scene.client(daemon.dataDir).async().ping();
    daemon.start();
    assertTrue(waiting.join().pong());
  }

  /** Cancelling a future stops waiting, and leaves the client as it was. */
  @Test
  void cancellingStopsWaiting() throws Exception {
    Client client = scene.client();
    String cursor = client.getChanges(GetChanges.of().withAfter("now")).cursor();
    GetChanges query = GetChanges.of().withAfter(cursor).withWaitMs(60_000);
    CompletableFuture<?> waiting = client.async().getChanges(query);
    waiting.cancel(true);
    assertThrows(CancellationException.class, waiting::join);
    assertTrue(client.ping().pong());
  }

  /** An interrupted thread stops waiting, stays interrupted, and does not know the outcome. */
  @Test
  void interruptedThreadStopsWaiting() throws Exception {
    Client client = scene.client(scene.fake((request, peer) -> null));
    AtomicReference<Throwable> thrown = new AtomicReference<>();
    AtomicReference<Boolean> isInterrupted = new AtomicReference<>();
    Thread thread =
        new Thread(
            () -> {
              thrown.set(assertThrows(NoReplyException.class, client::ping));
              isInterrupted.set(Thread.currentThread().isInterrupted());
            });
    thread.start();
    thread.interrupt();
    thread.join();
    assertTrue(thrown.get().getMessage().startsWith("the thread was interrupted"));
    assertTrue(isInterrupted.get());
  }

  /** Has something done on the thread of a client: the reply comes when it is told what. */
  private void onTheThreadOf(Client client, FakeDaemon fake, Runnable action) throws Exception {
    fake.hold();
    CompletableFuture<Void> done = client.async().ping().thenRun(action);
    fake.release();
    done.get(20, TimeUnit.SECONDS);
  }

  /** A blocking call on the client's own thread, which would wait for itself, is refused. */
  @Test
  void blockingCallOnTheClientsThreadIsRefused() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> pong(request));
    Client client = scene.client(fake);
    onTheThreadOf(
        client,
        fake,
        () -> {
          Throwable thrown = assertThrows(IllegalStateException.class, client::ping);
          assertTrue(thrown.getMessage().contains("use async()"));
        });
  }

  /** The client's thread goes on when what depends on a future interrupts it. */
  @Test
  void interruptOfTheClientsThreadIsCleared() throws Exception {
    FakeDaemon fake = scene.fake((request, peer) -> pong(request));
    Client client = scene.client(fake);
    AtomicReference<Thread> thread = new AtomicReference<>();
    onTheThreadOf(
        client,
        fake,
        () -> {
          thread.set(Thread.currentThread());
          Thread.currentThread().interrupt();
        });
    Scene.waitUntil(() -> !thread.get().isInterrupted());
    assertTrue(client.ping().pong());
  }

  /** Deprecated operations work, and answer with a record. */
  @Test
  @SuppressWarnings("deprecation")
  void deprecatedOperationsWork() throws Exception {
    Client client = scene.client();
    client.saveRoom(backscroll.records.Room.of("default", "d"));
    Channel channel = client.createChannel("general");
    assertEquals("general", channel.name());
    assertEquals(List.of(channel), client.listChannels());
  }
}
