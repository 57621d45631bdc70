package backscroll;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.errors.InvalidException;
import backscroll.errors.NotFoundException;
import backscroll.errors.StorageException;
import backscroll.errors.TooLargeException;
import backscroll.errors.UnavailableException;
import backscroll.records.Media;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Files of several parts, from and into streams. */
class MediaTest {
  @RegisterExtension final Scene scene = new Scene();

  private static byte[] bytes(int size) {
    byte[] bytes = new byte[size];
    new Random(1).nextBytes(bytes);
    return bytes;
  }

  /** A stream that gives few bytes at a time. */
  private static InputStream inPieces(byte[] bytes) {
    return new FilterInputStream(new ByteArrayInputStream(bytes)) {
      @Override
      public int read(byte[] target, int from, int size) throws IOException {
        return super.read(target, from, Math.min(size, 100_000));
      }
    };
  }

  /** A file of several parts goes up from a stream, and comes down as one, also over a restart. */
  @Test
  void fileOfSeveralParts() throws Exception {
    TestDaemon daemon = scene.daemon();
    Client client = scene.client(daemon.dataDir);
    byte[] bytes = bytes(9 * (1 << 20) + 7);
    Media media = client.upload(inPieces(bytes), "image/png", "ada");
    assertEquals(bytes.length, media.size());
    assertEquals(3, media.parts());
    assertEquals("ada", media.uploaderId());
    assertEquals(HexFormat.of().formatHex(Address.sha256(bytes)), media.sha256());
    Media again = client.upload(new ByteArrayInputStream(bytes), "image/png");
    assertEquals(media.id(), again.id());

    AtomicInteger parts = new AtomicInteger();
    ByteArrayOutputStream read = new ByteArrayOutputStream();
    OutputStream target =
        new OutputStream() {
          @Override
          public void write(int each) {
            read.write(each);
          }

          @Override
          public void write(byte[] part, int from, int size) throws IOException {
            if (parts.getAndIncrement() == 0) {
              daemon.restart();
            }
            read.write(part, from, size);
          }
        };
    assertEquals(media, client.download(media.id(), target));
    assertArrayEquals(bytes, read.toByteArray());
  }

  /** An empty file is one, and an unknown one is not found. */
  @Test
  void emptyAndUnknownFiles() throws Exception {
    Client client = scene.client();
    Media media = client.upload(InputStream.nullInputStream(), "text/plain");
    assertEquals(0, media.size());
    ByteArrayOutputStream read = new ByteArrayOutputStream();
    client.download(media.id(), read);
    assertEquals(0, read.size());
    assertThrows(NotFoundException.class, () -> client.download("none", read));
  }

  /** An upload whose source fails, or which is refused, ends with that error. */
  @Test
  void uploadThatFails() throws Exception {
    Client client = scene.client();
    InputStream failing =
        new FilterInputStream(new ByteArrayInputStream(bytes(5 << 20))) {
          @Override
          public int read(byte[] target, int from, int size) throws IOException {
            int read = super.read(target, from, size);
            if (read < 0) {
              throw new IOException("the disk was pulled out");
            }
            return read;
          }
        };
    IOException error = assertThrows(IOException.class, () -> client.upload(failing, "text/plain"));
    assertEquals("the disk was pulled out", error.getMessage());
    InputStream one = new ByteArrayInputStream(bytes(1));
    assertThrows(InvalidException.class, () -> client.upload(one, "text/plain", ""));
    client.close();
    assertThrows(
        UnavailableException.class, () -> client.upload(new ByteArrayInputStream(bytes(1)), "a"));
  }

  /** Bytes that were damaged on the disk are an error, and not given out as if they were whole. */
  @Test
  void damagedBytesAreAnError() throws Exception {
    TestDaemon daemon = scene.daemon();
    Client client = scene.client(daemon.dataDir);
    byte[] bytes = bytes(1 << 20);
    Media media = client.upload(new ByteArrayInputStream(bytes), "image/png");
    int damaged = 0;
    try (Stream<Path> files = Files.walk(daemon.dataDir)) {
      for (Path each : files.filter(file -> file.toString().contains("media")).toList()) {
        if (Files.isRegularFile(each) && Files.size(each) == bytes.length) {
          byte[] other = bytes.clone();
          other[1000] ^= 1;
          each.toFile().setWritable(true);
          Files.write(each, other);
          damaged++;
        }
      }
    }
    assertEquals(1, damaged);
    assertThrows(
        StorageException.class, () -> client.download(media.id(), OutputStream.nullOutputStream()));
  }

  /** The last request of an upload waits as long as any other of the client, and longer. */
  @Test
  void uploadWaitsAsLongAsItsClient() throws Exception {
    FakeDaemon fake =
        scene.fake(
            (request, peer) ->
                FakeDaemon.type(request).equals("put-media-part")
                    ? FakeDaemon.ok(request, "part")
                    : FakeDaemon.refusal(request, "too-large", "caller"));
    for (Duration timeout : List.of(Duration.ofHours(1), ClientBuilder.TIMEOUT_MAX)) {
      Client client = scene.client(fake.endpoint(), timeout);
      InputStream one = new ByteArrayInputStream(bytes(1));
      assertThrows(TooLargeException.class, () -> client.upload(one, "text/plain"));
      int last = fake.bodies.size() - 1;
      long deadlineMs = fake.requests().get(last).get("deadlineMs").longValue();
      assertTrue(deadlineMs > timeout.minusMinutes(1).toMillis());
    }
  }

  /** A daemon that gives other bytes than it announced is found out at the end. */
  @Test
  void otherBytesThanAnnounced() throws Exception {
    Map<String, Object> media =
        Map.of(
            "id",
            "f",
            "size",
            1,
            "parts",
            1,
            "mime",
            "a",
            "sha256",
            "0".repeat(64),
            "createdAt",
            1,
            "partBytes",
            1);
    FakeDaemon fake =
        scene.fake(
            (request, peer) ->
                FakeDaemon.ok(
                    request, FakeDaemon.type(request).equals("get-media") ? media : "eA=="));
    Client client = scene.client(fake);
    ByteArrayOutputStream read = new ByteArrayOutputStream();
    StorageException error = assertThrows(StorageException.class, () -> client.download("f", read));
    assertTrue(error.getMessage().contains("does not have the same bytes"));
    assertEquals(List.of("x"), List.of(read.toString()));
  }
}
