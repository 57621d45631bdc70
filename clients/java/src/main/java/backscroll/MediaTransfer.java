package backscroll;

import backscroll.errors.NotFoundException;
import backscroll.errors.StorageException;
import backscroll.internal.Json;
import backscroll.records.Media;
import backscroll.requests.GetMediaPart;
import backscroll.requests.Limits;
import backscroll.requests.PutMedia;
import backscroll.requests.PutMediaPart;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;

/** Upload and download of a whole file in parts, with only a few parts in memory at a time. */
final class MediaTransfer {
  private static final int PARTS_IN_FLIGHT = 3;

  /** How long the daemon may take for each part that it reads again. */
  private static final long READ_MS_PER_PART = 100;

  private final Client client;
  private final MessageDigest digest = Address.newSha256();

  MediaTransfer(Client client) {
    this.client = client;
  }

  Media upload(InputStream source, String mime, String uploaderId) throws IOException {
    client.checkMayWait();
    List<String> parts = new ArrayList<>();
    Queue<CompletableFuture<Answer<String>>> underWay = new ArrayDeque<>();
    try {
      byte[] data = source.readNBytes(Limits.MEDIA_PART_BYTES);
      do { // an empty file has one empty part
        digest.update(data);
        if (underWay.size() == PARTS_IN_FLIGHT) {
          parts.add(Client.await(underWay.remove()).result());
        }
        PutMediaPart part = PutMediaPart.of().withData(data);
        underWay.add(client.answerAsync(part, RequestOptions.of()));
        data = source.readNBytes(Limits.MEDIA_PART_BYTES);
      } while (data.length > 0);
      while (!underWay.isEmpty()) {
        parts.add(Client.await(underWay.remove()).result());
      }
    } finally {
      underWay.forEach(each -> each.cancel(false));
    }
    PutMedia put = PutMedia.of(parts, mime).withUploaderId(uploaderId);
    RequestOptions options = RequestOptions.of().withTimeout(timeoutFor(parts.size()));
    Media media = client.answer(put, options).result();
    check(media);
    return media;
  }

  private Duration timeoutFor(int parts) {
    Duration timeout = client.timeout().plusMillis(READ_MS_PER_PART * parts);
    return timeout.compareTo(ClientBuilder.TIMEOUT_MAX) > 0 ? ClientBuilder.TIMEOUT_MAX : timeout;
  }

  Media download(String mediaId, OutputStream target) throws IOException {
    Media media = client.getMedia(mediaId).orElseThrow(() -> unknown(mediaId));
    Queue<CompletableFuture<Answer<byte[]>>> underWay = new ArrayDeque<>();
    try {
      for (long part = 0, asked = 0; part < media.parts(); part++) {
        while (asked < media.parts() && underWay.size() < PARTS_IN_FLIGHT) {
          GetMediaPart next = GetMediaPart.of(mediaId).withPart(asked++);
          underWay.add(client.answerAsync(next, RequestOptions.of()));
        }
        byte[] data = Client.await(underWay.remove()).result();
        digest.update(data);
        target.write(data);
      }
    } finally {
      underWay.forEach(each -> each.cancel(false));
    }
    check(media);
    return media;
  }

  private void check(Media media) {
    if (!HexFormat.of().formatHex(digest.digest()).equals(media.sha256())) {
      String message =
          "media " + Json.quoted(media.id()) + " does not have the same bytes as the file";
      throw new StorageException(new ErrorReply("storage", message, "daemon", false, null));
    }
  }

  private static NotFoundException unknown(String mediaId) {
    String message = "there is no media " + Json.quoted(mediaId);
    return new NotFoundException(new ErrorReply("not-found", message, "caller", false, null));
  }
}
