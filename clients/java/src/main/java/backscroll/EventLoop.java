package backscroll;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * The thread of a client, which owns its connection and its calls. Other threads hand it tasks; it
 * alone settles calls, so futures are completed on it.
 */
final class EventLoop implements Runnable, Transport.Events {
  private static final long JOIN_MS = 1_000;

  /** Hears what happens, on the loop's thread; it must not throw. */
  interface Events {
    void connected();

    void lost(BackscrollException problem);

    /** There is a bug: the thread ends. */
    void failed(Throwable problem);
  }

  private final PendingCalls pending = new PendingCalls();
  private final Queue<Runnable> tasks = new ConcurrentLinkedQueue<>();
  private final Selector selector;
  private final Transport transport;
  private final Events events;
  private final Thread thread;
  private BackscrollException problem;
  private volatile boolean hasEnded;

  EventLoop(Supplier<Address> find, Events events) {
    try {
      selector = Selector.open();
    } catch (IOException e) {
      throw new UncheckedIOException("no selector can be opened", e);
    }
    this.events = events;
    transport = new Transport(selector, find, this);
    thread = new Thread(this, "backscroll client");
    thread.setDaemon(true);
    thread.start();
  }

  /** Throws on the loop's own thread, which must not wait for what only it can do. */
  void checkMayWait() {
    if (isCurrentThread()) {
      throw new IllegalStateException(
          "this is the client's thread, and would wait for itself: use async(), or thenApplyAsync"
              + " for what depends on a future");
    }
  }

  private boolean isCurrentThread() {
    return Thread.currentThread() == thread;
  }

  /** Takes room for a call, and has it sent; throws if there are too many. */
  void submit(Call call) {
    pending.reserve(call);
    execute(() -> pending.add(call));
  }

  /** Drops a call that nobody waits for any more. */
  void forget(Call call) {
    execute(() -> pending.forget(call));
  }

  /** Closes the connection and settles all calls; the thread ends. */
  void close() {
    execute(() -> pending.close(PendingCalls.CLOSED));
    if (isCurrentThread()) {
      return;
    }
    try {
      thread.join(JOIN_MS); // it takes longer only if what depends on a future does not return
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private void execute(Runnable task) {
    tasks.add(task);
    if (hasEnded) {
      executeTasks(); // nobody else does: calls are settled at once, because there are no others
    } else {
      selector.wakeup();
    }
  }

  private void executeTasks() {
    for (Runnable task = tasks.poll(); task != null; task = tasks.poll()) {
      task.run();
    }
  }

  @Override
  public void run() {
    String why = PendingCalls.CLOSED;
    try {
      while (!pending.isClosed()) {
        turn();
      }
    } catch (IOException | RuntimeException | Error e) {
      why = "this client has failed (" + e + ")";
      events.failed(e);
    } finally {
      end(why);
    }
  }

  private void turn() throws IOException {
    // What was interrupted, as by what depends on a future, would neither wait nor read any more.
    Thread.interrupted();
    selector.select(this::selected, untilNext());
    executeTasks();
    transport.setActive(pending.size() > 0); // before a deadline, whose error says what this met
    long now = System.nanoTime();
    transport.tick(now);
    for (Call call : pending.expired(now)) {
      timedOut(call);
    }
    pending.queueRetry(now);
    send();
  }

  private void selected(SelectionKey key) {
    ((ZmtpConnection) key.attachment()).selected();
  }

  /** How long nothing is to be done unless something happens: at least 1 ms, 0 is for ever. */
  private long untilNext() {
    long now = System.nanoTime();
    long wait = Long.MAX_VALUE;
    for (Long time : new Long[] {transport.nextTick(), pending.nextDeadline(), pending.retryAt()}) {
      if (time != null) {
        wait = Math.min(wait, Math.max(1, TimeUnit.NANOSECONDS.toMillis(time - now) + 1));
      }
    }
    return wait == Long.MAX_VALUE ? 0 : wait;
  }

  private void send() {
    if (transport.isConnected()) {
      for (Call call = pending.next(); call != null; call = pending.next()) {
        transport.send(pending.markSent(call, System.nanoTime(), transport.token()));
      }
    }
    transport.flush();
  }

  private void timedOut(Call call) {
    BackscrollException error = call.unansweredInTime();
    if (!call.wasSent()) {
      String behind = "too many requests before it have no reply yet";
      error = transport.isConnected() ? call.unanswered(behind) : problem == null ? error : problem;
    }
    if (pending.timeOut(call, error, transport.receivedAt())) {
      transport.drop("the daemon does not answer");
    }
  }

  private void end(String why) {
    pending.close(why);
    transport.close();
    try {
      selector.close();
    } catch (IOException e) {
      events.failed(e);
    }
    hasEnded = true;
    executeTasks(); // those that came meanwhile
  }

  @Override
  public void connected() {
    problem = null;
    pending.reconnected();
    events.connected();
  }

  @Override
  public void reply(byte[] body) {
    try {
      pending.handleReply(Reply.read(body, pending::resultType), System.nanoTime());
    } catch (BackscrollException e) {
      pending.fail(call -> unreadable(call, e)); // it is unknown which call it belongs to
    }
  }

  /** The error for a call whose reply may be one that cannot be read; null if it has none yet. */
  private static BackscrollException unreadable(Call call, BackscrollException problem) {
    if (!call.wasSent()) {
      return null;
    }
    return call.hasEffect() ? call.unanswered(problem.getMessage()) : problem;
  }

  @Override
  public void lost(BackscrollException problem) {
    this.problem = problem;
    pending.lost();
    if (problem instanceof CallerException) { // what does not go away by waiting
      pending.fail(call -> call.wasSent() ? null : problem);
    }
    if (!pending.isClosed()) {
      events.lost(problem);
    }
  }
}
