package backscroll;

import backscroll.errors.BusyException;
import backscroll.requests.OperationTable;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * What a client has under way, without any I/O: what is sent next, and sent again.
 *
 * <pre>
 * call ──add()──▶ queue ──next(), markSent()──▶ daemon
 *                 ▲  ▲                            │
 * reconnected() ──┘  └──── handleReply() ◀────────┘
 * </pre>
 *
 * <p>The daemon executes a command once, however often it receives the same id. So unanswered calls
 * are sent again:
 *
 * <ul>
 *   <li>On a new connection, all of them in the order first sent, before anything new.
 *   <li>After a refusal while an earlier attempt is in doubt, because its connection was lost. Such
 *       a refusal says nothing about that attempt, unless it is the caller's fault. The call is
 *       sent again after {@link #RETRY_DELAY}, unless others were sent after it: then its outcome
 *       is unknown.
 * </ul>
 *
 * <p>A call is never sent twice on one connection, which loses nothing while it lives: the copy
 * would stand behind later requests, and could take effect after them. The ids of maintenance
 * operations are not remembered by the daemon, so these are sent once; if their connection is lost,
 * the outcome is unknown.
 *
 * <p>A connection may be lost while the daemon runs on, with the refusal of a command unread. Sent
 * again, it is judged anew, after commands that were sent later. So commands have {@code client},
 * an id of this object, and {@code n}, which rises: the daemon does not execute a command after a
 * later one of its client, and answers {@code superseded}.
 *
 * <p>Only {@link #reserve} may be called by other threads than the client's own. Times are those of
 * {@code nanoTime}.
 */
final class PendingCalls {
  static final long RETRY_DELAY = TimeUnit.MILLISECONDS.toNanos(100);

  static final String CLOSED = "the client was closed";

  /** Requests without a reply, and their bytes. Queries that wait in the daemon do not count. */
  private static final int IN_FLIGHT_MAX = 1_000;

  private static final long IN_FLIGHT_BYTES_MAX = 32L * 1024 * 1024;

  /** All calls of a client, also those that are not sent yet, and the bytes of their bodies. */
  private static final int CALLS_MAX = 100_000;

  private static final long CALLS_BYTES_MAX = 256L * 1024 * 1024;

  private static final Comparator<Call> BY_DEADLINE =
      Comparator.comparingLong((Call call) -> call.deadline).thenComparingLong(call -> call.number);

  private final String client = Ulid.next();

  /** The calls without an outcome, in the order first sent. */
  private final Map<String, Call> calls = new LinkedHashMap<>();

  private final TreeSet<Call> byDeadline = new TreeSet<>(BY_DEADLINE);

  /** Those to send next. Settled ones are skipped when they come to the head. */
  private ArrayDeque<Call> queue = new ArrayDeque<>();

  /**
   * The bytes of each request that has no reply on this connection, also of those that nobody waits
   * for any more. There are several with one id if the caller stopped waiting and executed the
   * command again.
   */
  private final Map<String, List<Long>> inFlight = new HashMap<>();

  private int inFlightCount;
  private long inFlightBytes;
  private long commands;
  private long added;
  private long highestSent;
  private Call refused;
  private long retryAt;

  /** For the first request only. */
  private Integer level = OperationTable.LEVEL;

  private boolean isClosed;

  private final Object room = new Object();
  private int reservedCalls;
  private long reservedBytes;

  int size() {
    return calls.size();
  }

  boolean isClosed() {
    return isClosed;
  }

  /** When to call {@link #queueRetry}; null if there is nothing to retry. */
  Long retryAt() {
    return refused == null ? null : retryAt;
  }

  /** Takes room for a call, before it is added; throws if this client has too many. */
  void reserve(Call call) {
    synchronized (room) {
      if (reservedCalls >= CALLS_MAX || reservedBytes + call.bytes > CALLS_BYTES_MAX) {
        String held =
            reservedCalls + " requests of this client, of " + reservedBytes + " bytes, have";
        String advice = " no reply yet: wait for some; nothing was sent";
        throw new BusyException(new ErrorReply("busy", held + advice, "daemon", true, null));
      }
      reservedCalls++;
      reservedBytes += call.bytes;
      call.holdsRoom = true;
    }
  }

  private void release(Call call) {
    synchronized (room) {
      if (call.holdsRoom) {
        call.holdsRoom = false;
        reservedCalls--;
        reservedBytes -= call.bytes;
      }
    }
  }

  /** Appends a call to the queue, or settles it if the client was closed or has one of this id. */
  void add(Call call) {
    if (call.isCommand()) {
      call.n = ++commands;
    }
    if (isClosed) {
      settle(call, null, call.unanswered(CLOSED));
    } else if (calls.containsKey(call.id)) {
      String problem = "a request with the id \"" + call.id + "\" is already in flight";
      settle(call, null, Errors.invalid(problem));
    } else {
      sendRefusedNow(); // before a new one
      call.number = ++added;
      calls.put(call.id, call);
      byDeadline.add(call);
      queue.add(call);
    }
  }

  /** The next call to send; null if there is none, or too many are in flight. */
  Call next() {
    while (!queue.isEmpty() && queue.peek().isSettled) {
      queue.remove();
    }
    Call call = queue.peek();
    return call == null || (!call.waits() && isFull(call.bytes)) ? null : call;
  }

  /** Notes that the next call is sent now; returns the parts of its body. */
  byte[][] markSent(Call call, long now, String token) {
    byte[][] body = call.bodyAt(now, client, level, token);
    level = null;
    queue.remove();
    call.isAwaitingReply = true;
    call.sentAt = now;
    highestSent = Math.max(highestSent, call.number);
    if (!call.waits()) {
      inFlight.merge(call.id, List.of(call.bytes), PendingCalls::joined);
      inFlightCount++;
      inFlightBytes += call.bytes;
    }
    return body;
  }

  /** The type of the result of a call that waits for its reply; null if there is no such call. */
  ResultType resultType(String id) {
    Call call = calls.get(id);
    return call != null && call.isAwaitingReply ? call.info.result() : null;
  }

  /** Processes a reply. One to a call that nobody waits for is dropped. */
  void handleReply(Reply reply, long now) {
    if (reply.id() == null || isOfEarlier(reply.id())) {
      return;
    }
    Call call = calls.get(reply.id());
    if (call == null || !call.isAwaitingReply) {
      return;
    }
    call.isAwaitingReply = false;
    boolean isFinal = !call.isInDoubt || reply.isOk() || reply.error() instanceof CallerException;
    if (isFinal) {
      settle(call, reply.answer(), reply.error());
    } else if (call.number < highestSent) {
      String why = "a retry was refused, and other requests were sent after it";
      settle(call, null, call.unanswered(why));
    } else {
      refused = call;
      retryAt = now + RETRY_DELAY;
      if (queue.stream().anyMatch(each -> !each.isSettled)) {
        sendRefusedNow();
      }
    }
  }

  /** There is a new connection: all calls without an outcome are sent on it, in order. */
  void reconnected() {
    lost();
    queue = new ArrayDeque<>(calls.values());
  }

  /** The connection was lost: what was sent on it is in doubt. */
  void lost() {
    inFlight.clear();
    inFlightCount = 0;
    inFlightBytes = 0;
    refused = null;
    queue.clear();
    for (Call call : List.copyOf(calls.values())) {
      call.isInDoubt = call.wasSent();
      call.isAwaitingReply = false;
      if (call.isInDoubt && call.info.kind() == OperationInfo.Kind.MAINTENANCE) {
        settle(call, null, call.unanswered("the connection was lost"));
      }
    }
  }

  /** Queues the refused call, before those that were never sent, if its delay is over. */
  void queueRetry(long now) {
    if (refused != null && now >= retryAt) {
      sendRefusedNow();
    }
  }

  private void sendRefusedNow() {
    if (refused != null) {
      queue.addFirst(refused);
      refused = null;
    }
  }

  /** Drops a call that nobody waits for any more. */
  void forget(Call call) {
    call.isSettled = true;
    release(call);
    if (calls.get(call.id) != call) {
      return;
    }
    calls.remove(call.id);
    byDeadline.remove(call);
    if (refused == call) {
      refused = null;
    }
    if (queue.size() > 2 * calls.size() + IN_FLIGHT_MAX) {
      queue.removeIf(each -> each.isSettled);
    }
  }

  /** Settles all calls for which there is an error. */
  void fail(Function<Call, BackscrollException> errorOf) {
    for (Call call : List.copyOf(calls.values())) {
      BackscrollException error = errorOf.apply(call);
      if (error != null) {
        settle(call, null, error);
      }
    }
  }

  /** Settles all calls, and from now on each new one. */
  void close(String why) {
    isClosed = true;
    fail(call -> call.unanswered(why));
  }

  /** The next deadline of a call; null if there are no calls. */
  Long nextDeadline() {
    return byDeadline.isEmpty() ? null : byDeadline.first().deadline;
  }

  /** The calls whose deadline has passed. */
  List<Call> expired(long now) {
    List<Call> expired = new ArrayList<>();
    for (Call call : byDeadline) {
      if (call.deadline - now > 0) {
        break;
      }
      expired.add(call);
    }
    return expired;
  }

  /**
   * Settles a call whose deadline has passed; {@code receivedAt} is when the latest bytes arrived.
   * Returns whether the connection is to be given up as lost: if nothing has arrived since the call
   * was sent, and if nobody waits for any of the requests that fill the window, because their
   * replies may never come.
   */
  boolean timeOut(Call call, BackscrollException error, long receivedAt) {
    boolean isSilent = call.isAwaitingReply && receivedAt < call.sentAt;
    settle(call, null, error);
    if (isSilent || call.waits() || !isFull(call.bytes)) {
      return isSilent;
    }
    return inFlight.keySet().stream().noneMatch(calls::containsKey);
  }

  private void settle(Call call, Answer<?> answer, BackscrollException error) {
    forget(call);
    call.outcome.settled(call, answer, error);
  }

  /**
   * Notes a reply. True if it is to a request that nobody waits for, after which the same id was
   * sent again: a refusal of the first says nothing about the second.
   */
  private boolean isOfEarlier(String id) {
    List<Long> bytes = inFlight.get(id);
    if (bytes == null) {
      return false;
    }
    inFlightCount--;
    inFlightBytes -= bytes.get(0);
    if (bytes.size() == 1) {
      inFlight.remove(id);
      return false;
    }
    inFlight.put(id, bytes.subList(1, bytes.size()));
    return true;
  }

  /** Whether so many bytes more would be too much; one request is always allowed. */
  private boolean isFull(long bytes) {
    return inFlightCount >= IN_FLIGHT_MAX
        || (inFlightCount > 0 && inFlightBytes + bytes > IN_FLIGHT_BYTES_MAX);
  }

  private static List<Long> joined(List<Long> earlier, List<Long> later) {
    List<Long> both = new ArrayList<>(earlier);
    both.addAll(later);
    return both;
  }
}
