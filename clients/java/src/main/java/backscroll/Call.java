package backscroll;

import backscroll.internal.Json;
import backscroll.requests.GetChanges;
import backscroll.requests.Limits;
import backscroll.requests.OperationTable;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * One request, from its creation until its outcome is known. Times are those of {@code nanoTime}.
 */
final class Call {
  static final String DEFAULT_SCOPE = "default";

  /** Of an operation of a later level. The daemon ignores what only a command needs. */
  private static final OperationInfo OTHER =
      new OperationInfo("", OperationInfo.Kind.COMMAND, ResultType.ANYTHING, List.of());

  final String id;
  final OperationInfo info;

  /** What waits for the outcome. */
  final Outcome outcome;

  final long timeoutNanos;

  /** When its caller stops waiting. */
  final long deadline;

  /** Bytes of the body, at least. */
  final long bytes;

  /** Its place among all calls of the client. */
  long number;

  /** Its number among the commands of the client; 0 if it is none. */
  long n;

  /** When it was sent on the current connection. */
  long sentAt;

  boolean isAwaitingReply;
  boolean isInDoubt;
  boolean isSettled;

  /** Whether it takes some of the room that there is for all calls of a client. */
  boolean holdsRoom;

  private final String operation;
  private final byte[] before;
  private final byte[] payload;
  private final byte[] after;
  private final long waitMs;

  /** Encodes the request; throws if that is not possible, or if its body is over the limit. */
  Call(String operation, Object payload, Envelope envelope, long now, Outcome outcome) {
    this.operation = operation;
    this.info = infoOf(operation);
    this.id = envelope.requestId() == null ? Ulid.next() : envelope.checkedId();
    this.outcome = outcome;
    this.payload = encoded(payload);
    this.waitMs = waitMsOf(payload);
    this.timeoutNanos =
        TimeUnit.MILLISECONDS.toNanos(waitMs) + TimeUnit.MILLISECONDS.toNanos(envelope.timeoutMs());
    this.deadline = now + timeoutNanos;
    this.before =
        utf8(
            "{\"id\":" + Json.quoted(id) + ",\"type\":" + Json.quoted(operation) + ",\"payload\":");
    this.after = utf8(envelope.scopeAndTrace());
    this.bytes = (long) before.length + this.payload.length + after.length;
    long most = operation.equals("append-log") ? Limits.LOG_BODY_BYTES : Limits.BODY_BYTES;
    if (bytes > most) {
      throw Errors.tooLarge("the body has " + bytes + " bytes; at most " + most + " are allowed");
    }
  }

  /** Hears how a call ended: of answer and error one is null. */
  interface Outcome {
    void settled(Call call, Answer<?> answer, BackscrollException error);
  }

  /** What the envelope of a request has besides its operation; what is null is left out. */
  record Envelope(long timeoutMs, String scope, String requestId, String traceparent) {
    private String checkedId() {
      return checkedText("a request id", requestId, Limits.REQUEST_ID_BYTES);
    }

    private String scopeAndTrace() {
      String scoped =
          scope == null || scope.equals(DEFAULT_SCOPE) ? "" : ",\"scope\":" + Json.quoted(scope);
      return scoped + (traceparent == null ? "" : ",\"traceparent\":" + Json.quoted(traceparent));
    }
  }

  static OperationInfo infoOf(String operation) {
    return OperationTable.OPERATIONS.getOrDefault(operation, OTHER);
  }

  String operation() {
    return operation;
  }

  boolean isCommand() {
    return info.kind() == OperationInfo.Kind.COMMAND;
  }

  /** Whether the call may have had an effect, while it has no outcome. */
  boolean wasSent() {
    return isAwaitingReply || isInDoubt;
  }

  /** Whether it changes something. */
  boolean hasEffect() {
    return isCommand() || info.kind() == OperationInfo.Kind.MAINTENANCE;
  }

  /** Whether its reply may come long after those of later calls. */
  boolean waits() {
    return waitMs > 0;
  }

  /**
   * What to send now. Attempts differ only in {@code deadlineMs}, the remaining time. A query that
   * waits must wait so much less, or its reply would come after the deadline.
   */
  byte[][] bodyAt(long now, String client, Integer level, String token) {
    long remainingMs = Math.max(1, ceilMillis(deadline - now));
    String numbered = n == 0 ? "" : ",\"client\":\"" + client + "\",\"n\":" + n;
    String leveled = level == null ? "" : ",\"level\":" + level;
    String authorised = token == null ? "" : ",\"auth\":" + Json.quoted(token);
    byte[] end = utf8(numbered + ",\"deadlineMs\":" + remainingMs + leveled + authorised + "}");
    return new byte[][] {before, payloadFor(remainingMs), after, end};
  }

  private byte[] payloadFor(long remainingMs) {
    long timeoutMs = ceilMillis(timeoutNanos);
    if (!waits() || remainingMs >= timeoutMs) {
      return payload;
    }
    try {
      ObjectNode fields = (ObjectNode) Json.tree(payload);
      fields.put("waitMs", Math.max(0, waitMs - (timeoutMs - remainingMs)));
      return Json.writeRequest(fields);
    } catch (IOException e) {
      throw new UncheckedIOException(e); // it was written here
    }
  }

  /** The error for a call that got no reply, which depends on whether it was sent. */
  BackscrollException unanswered(String why) {
    if (!wasSent()) {
      return Errors.unavailable(why + "; nothing was sent");
    }
    return new NoReplyException(why + ": whether the request took effect is unknown");
  }

  /** The error for a call whose deadline has passed. */
  BackscrollException unansweredInTime() {
    return unanswered(
        wasSent() ? "no reply within " + ceilMillis(timeoutNanos) + " ms" : "no daemon answers");
  }

  private static long ceilMillis(long nanos) {
    return -Math.floorDiv(-nanos, TimeUnit.MILLISECONDS.toNanos(1));
  }

  /** A text of the envelope; throws if it is too long, or would be another one in UTF-8. */
  static String checkedText(String what, String text, int most) {
    byte[] bytes = utf8(text);
    boolean isSame = new String(bytes, StandardCharsets.UTF_8).equals(text);
    if (bytes.length < 1 || bytes.length > most || !isSame) {
      throw Errors.invalid(what + " must be text of 1 to " + most + " bytes");
    }
    return text;
  }

  /**
   * How long the daemon is asked to wait; 0 also for what it refuses, so that its refusal is waited
   * for like any reply.
   */
  private static long waitMsOf(Object payload) {
    Object asked = null;
    if (payload instanceof GetChanges changes) {
      asked = changes.waitMs();
    } else if (payload instanceof Map<?, ?> fields) {
      asked = fields.get("waitMs");
    }
    long waitMs = asked instanceof Number number ? number.longValue() : 0;
    return waitMs > 0 && waitMs <= Limits.WAIT_MS ? waitMs : 0;
  }

  private static byte[] encoded(Object payload) {
    try {
      return Json.writeRequest(payload);
    } catch (JsonMappingException e) {
      throw Errors.invalidAt(pathOf(e), e.getOriginalMessage());
    } catch (JsonProcessingException e) {
      throw Errors.invalid("the payload cannot be written: " + e.getOriginalMessage());
    }
  }

  private static String pathOf(JsonMappingException problem) {
    StringBuilder path = new StringBuilder("$.payload");
    for (JsonMappingException.Reference each : problem.getPath()) {
      if (each.getFieldName() == null) {
        path.append('[').append(each.getIndex()).append(']');
      } else {
        path.append('.').append(each.getFieldName());
      }
    }
    return path.toString();
  }

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}
