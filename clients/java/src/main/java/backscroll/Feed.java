package backscroll;

import backscroll.records.ChangePage;
import backscroll.requests.GetChanges;
import backscroll.requests.Ping;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/**
 * Follows a scope, for a loop: {@code for (var each : feed)}. Close it after the loop, or from
 * another thread to end the loop; it ends with its client too.
 *
 * <p>One question is asked at a time, and only while the caller waits for the next item: nothing is
 * queued for a slow caller. The first question shows whether a daemon answers: its errors are
 * thrown. From then on it waits for the daemon, however long that is away. Nothing is lost with a
 * connection, because the daemon pushes nothing: whatever happened, the next question has the same
 * cursor.
 *
 * @param <T> the type of the items
 */
public abstract sealed class Feed<T> implements Iterable<T>, AutoCloseable permits Changes, Watch {
  /** How long one question waits for a change. */
  private static final long WAIT_MS = 30_000;

  private static final long PAUSE_MS = 20;
  private static final long PAUSE_MS_MAX = 1_000;

  private final Client client;
  private final CountDownLatch closing = new CountDownLatch(1);
  private volatile CompletableFuture<?> question;
  private boolean hasBegun;
  private long pauseMs = PAUSE_MS;

  Feed(Client client) {
    this.client = client;
  }

  /** Asks what is needed before the first item. */
  abstract void begin();

  /** Waits for the next item. */
  abstract T advance();

  /** Notes that an item is given to the caller. */
  void given(T item) {}

  /**
   * The one iterator over the items; its {@code hasNext} waits, and is false after the feed or the
   * client was closed.
   *
   * @return the iterator, which goes on where an earlier one stopped
   */
  @Override
  public Iterator<T> iterator() {
    return items;
  }

  /** Ends the iteration, also while it waits. */
  @Override
  public void close() {
    closing.countDown();
    CompletableFuture<?> asked = question;
    if (asked != null) {
      asked.cancel(false);
    }
    client.ended(this);
  }

  private final Iterator<T> items =
      new Iterator<>() {
        private T next;

        @Override
        public boolean hasNext() {
          if (next == null) {
            next = nextOrNull();
          }
          return next != null;
        }

        @Override
        public T next() {
          if (!hasNext()) {
            throw new NoSuchElementException("the feed was closed");
          }
          T item = next;
          next = null;
          given(item);
          return item;
        }
      };

  /** The next item; null if the feed was closed. */
  private T nextOrNull() {
    try {
      if (isClosed()) {
        return null;
      }
      if (!hasBegun) {
        once(new Ping());
        begin();
        hasBegun = true;
      }
      return advance();
    } catch (CancellationException | BackscrollException e) {
      if (isClosed()) {
        return null;
      }
      throw e;
    }
  }

  private boolean isClosed() {
    return closing.getCount() == 0 || client.isClosed();
  }

  /** The answer to a request, whose errors are thrown. */
  <R> Answer<R> once(Request<R> request) {
    client.checkMayWait();
    CompletableFuture<Answer<R>> asked = client.answerAsync(request, RequestOptions.of());
    question = asked;
    if (isClosed()) {
      asked.cancel(false); // it was closed before it knew of the question
    }
    try {
      return asked.get();
    } catch (InterruptedException e) {
      asked.cancel(false);
      throw interrupted();
    } catch (ExecutionException e) {
      throw ((BackscrollException) e.getCause()).atCaller();
    }
  }

  /** The answer to a query, however long the daemon is away. */
  <R> Answer<R> ask(Request<R> query) {
    long pause = PAUSE_MS;
    while (true) {
      try {
        return once(query);
      } catch (BackscrollException e) {
        boolean mayPass = e.isRetryable() || e instanceof NoReplyException;
        if (!mayPass || isClosed() || Thread.currentThread().isInterrupted()) {
          throw e;
        }
      }
      pause(pause);
      pause = Math.min(2 * pause, PAUSE_MS_MAX);
    }
  }

  /** The cursor at the end of the feed. */
  String now() {
    return ask(GetChanges.of().withAfter("now")).result().cursor();
  }

  /**
   * The page after a cursor. Where an empty one came long before its time, the daemon has too many
   * that wait.
   */
  ChangePage pageAfter(String cursor, GetChanges query) {
    long begun = System.nanoTime();
    ChangePage page = ask(query.withAfter(cursor).withWaitMs(WAIT_MS)).result();
    long tookMs = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begun);
    boolean isEmpty = page.changes().isEmpty() && !page.more() && !isGap(page);
    if (isEmpty && tookMs <= WAIT_MS / 2) {
      pause(pauseMs);
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
    } else {
      pauseMs = PAUSE_MS;
    }
    return page;
  }

  static boolean isGap(ChangePage page) {
    return Boolean.TRUE.equals(page.gap());
  }

  private void pause(long milliseconds) {
    try {
      if (closing.await(milliseconds, TimeUnit.MILLISECONDS)) {
        throw new CancellationException("the feed was closed");
      }
    } catch (InterruptedException e) {
      throw interrupted();
    }
  }

  private static NoReplyException interrupted() {
    Thread.currentThread().interrupt();
    return new NoReplyException("the thread was interrupted while it waited for a change");
  }
}
