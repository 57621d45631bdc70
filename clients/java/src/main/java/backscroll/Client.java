package backscroll;

import backscroll.internal.Json;
import backscroll.records.Media;
import backscroll.requests.AsyncOperations;
import backscroll.requests.Batch;
import backscroll.requests.Operations;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.System.Logger.Level;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * A client of a backscroll daemon. It connects with the first request, and again whenever the
 * connection was lost. Any number of threads may use it.
 *
 * <p>Its methods wait for their results; those of {@link #async()} return futures. Requests take
 * effect in the order of the calls. Those without a reply are sent again on a new connection, in
 * that order and before any other; the daemon recognises commands by their ids, so each takes
 * effect once. At most 1,000 are in flight; more wait here, up to 100,000 with bodies of 256 MiB,
 * and beyond that fail with {@link backscroll.errors.BusyException}.
 *
 * <p>A request fails with the error of the daemon's reply if it had no effect ({@link
 * backscroll.errors.NotFoundException}, …), with {@link backscroll.errors.UnavailableException} if
 * nothing was sent, and with {@link NoReplyException} if its outcome is unknown.
 *
 * <p>A client has one daemon thread, which ends when it is closed.
 */
public final class Client implements Operations, AutoCloseable {
  static final Duration TIMEOUT = Duration.ofSeconds(5);

  private final EventLoop loop;
  private final String scope;
  private final Duration timeout;
  private final Supplier<String> traceparent;
  private final SafeLogger logger;

  /** The feeds that are open, which end with the client. */
  private final Set<Feed<?>> feeds = ConcurrentHashMap.newKeySet();

  private volatile boolean isClosed;

  Client(ClientBuilder options, Address.Location location) {
    scope = options.scope;
    timeout = options.timeout;
    traceparent = options.traceparent;
    logger = new SafeLogger(options.logger);
    loop = new EventLoop(() -> Address.find(location), new Connections(options.listener, logger));
  }

  /**
   * How to find the daemon, and what holds for all requests.
   *
   * @return the options to set
   */
  public static ClientBuilder builder() {
    return new ClientBuilder();
  }

  /**
   * A client of the daemon that serves a data directory, which is started if none does. For options
   * see {@link ClientBuilder#open}.
   *
   * @param dataDir the data directory, which need not be there
   * @return the client
   */
  public static Client open(Path dataDir) {
    return builder().open(dataDir);
  }

  @Override
  public <R> R call(Request<R> request) {
    return answer(request).result();
  }

  /**
   * Send a request by its name, which may be of a later level than this client, and wait for its
   * result.
   *
   * @param operation the name, such as {@code save-message}
   * @param payload the payload as JSON has it
   * @return the result, as records if the operation is one of this level, or otherwise as maps,
   *     lists, texts and numbers
   */
  public Object call(String operation, Map<String, ?> payload) {
    checkMayWait();
    return await(start(operation, payload, RequestOptions.of(), answer -> answer)).result();
  }

  /**
   * Like {@link #call(Request)}, with the number of the scope's commit that the result reflects.
   *
   * @param <R> the type of the result
   * @param request the request
   * @return the answer
   */
  public <R> Answer<R> answer(Request<R> request) {
    return answer(request, RequestOptions.of());
  }

  /**
   * Like {@link #answer(Request)}, with options.
   *
   * @param <R> the type of the result
   * @param request the request
   * @param options what holds for it
   * @return the answer
   */
  public <R> Answer<R> answer(Request<R> request, RequestOptions options) {
    checkMayWait();
    return await(start(request.operation(), request, options, answer -> typed(request, answer)));
  }

  /**
   * Like {@link #answer(Request)}, without waiting.
   *
   * @param <R> the type of the result
   * @param request the request
   * @param options what holds for it
   * @return the answer, when it is there; completed on the client's thread
   */
  public <R> CompletableFuture<Answer<R>> answerAsync(Request<R> request, RequestOptions options) {
    return orFailed(
        () -> start(request.operation(), request, options, answer -> typed(request, answer)));
  }

  /**
   * All operations with options for these requests.
   *
   * @param options what holds for each request that is sent with the result
   * @return the operations
   */
  public Operations with(RequestOptions options) {
    return new Operations() {
      @Override
      public <R> R call(Request<R> request) {
        return answer(request, options).result();
      }
    };
  }

  /**
   * All operations as methods that return at once. Calling them without waiting is pipelining.
   *
   * @return the operations
   */
  public AsyncOperations async() {
    return async(RequestOptions.of());
  }

  /**
   * Like {@link #async()}, with options for these requests.
   *
   * @param options what holds for each request that is sent with the result
   * @return the operations
   */
  public AsyncOperations async(RequestOptions options) {
    return new AsyncOperations() {
      @Override
      public <R> CompletableFuture<R> call(Request<R> request) {
        return orFailed(
            () ->
                start(
                    request.operation(),
                    request,
                    options,
                    answer -> typed(request, answer).result()));
      }
    };
  }

  /**
   * Follow the feed for ever: what changed after a cursor, in order, and what changes next. The
   * loop over it waits in the thread that runs it:
   *
   * <pre>{@code
   * try (Changes changes = client.changes(ChangesOptions.after(cursor))) {
   *   for (ItemChange change : changes) {
   *     if (change.value() instanceof Message message) {
   *       show(message);
   *     }
   *   }
   * }
   * }</pre>
   *
   * <p>Store {@link Changes#cursor} together with what was applied, and begin there the next time.
   * To start without the history and lose nothing, store {@code
   * client.getChanges(GetChanges.of().withAfter("now")).cursor()} first, and begin there.
   *
   * <p>If no daemon answers at the start, the loop throws. Later it goes on by itself when the
   * daemon was restarted or could not answer for a while. {@link FeedGapException} means that the
   * cursor is of another history of the scope. The loop ends when the changes are closed, by any
   * thread, or the client is.
   *
   * @param options where to begin, and what to leave out
   * @return the changes, to be read in a loop and closed
   */
  public Changes changes(ChangesOptions options) {
    return open(new Changes(this, options));
  }

  /**
   * The result of a query, now and whenever it has changed, for ever. A slow reader gets the newest
   * result and misses those between; a result is never older than the one before it. It throws,
   * goes on and ends like {@link #changes}; {@link Watched#gap} says that the scope has another
   * history now. That only time passes is not noticed. The daemon lets 64 wait for one client:
   * where there are more, each may notice a change a second later.
   *
   * @param <R> the type of the result
   * @param query the query
   * @return the results, to be read in a loop and closed
   */
  public <R> Watch<R> watch(Query<R> query) {
    return open(new Watch<>(this, query));
  }

  /**
   * Upload a file in parts.
   *
   * @param source the bytes, which are read to their end; the stream is not closed
   * @param mime the media type, such as {@code image/jpeg}
   * @return its media, which may have existed
   * @throws IOException if the source cannot be read
   */
  public Media upload(InputStream source, String mime) throws IOException {
    return upload(source, mime, null);
  }

  /**
   * Upload a file in parts. If it fails, the daemon removes the parts within two days.
   *
   * @param source the bytes, which are read to their end; the stream is not closed
   * @param mime the media type, such as {@code image/jpeg}
   * @param uploaderId who uploads it, as {@link Media} names it; or null
   * @return its media, which may have existed
   * @throws IOException if the source cannot be read
   */
  public Media upload(InputStream source, String mime, String uploaderId) throws IOException {
    return new MediaTransfer(this).upload(source, mime, uploaderId);
  }

  /**
   * Write the bytes of a file to a stream, part by part.
   *
   * @param mediaId the id of the media
   * @param target where the bytes go; the stream is not closed
   * @return its media
   * @throws IOException if the target cannot be written
   * @throws backscroll.errors.NotFoundException for an unknown media
   * @throws backscroll.errors.StorageException at the end, if the bytes are not those that were put
   */
  public Media download(String mediaId, OutputStream target) throws IOException {
    return new MediaTransfer(this).download(mediaId, target);
  }

  /**
   * Close the connection. Requests without a reply fail, later ones too, and loops over what
   * changes end. The client's thread has ended when this returns.
   */
  @Override
  public void close() {
    isClosed = true;
    feeds.forEach(Feed::close);
    loop.close();
  }

  void checkMayWait() {
    loop.checkMayWait();
  }

  Duration timeout() {
    return timeout;
  }

  boolean isClosed() {
    return isClosed;
  }

  void ended(Feed<?> feed) {
    feeds.remove(feed);
  }

  private <F extends Feed<?>> F open(F feed) {
    feeds.add(feed);
    if (isClosed) {
      feed.close();
    }
    return feed;
  }

  /** Sends a request, and reads its answer for the caller. */
  private <T> CompletableFuture<T> start(
      String operation, Object payload, RequestOptions options, Function<Answer<?>, T> read) {
    long begun = System.nanoTime();
    Duration patience = options.timeout() == null ? timeout : options.timeout();
    String trace = options.traceparent() == null ? traceparent.get() : options.traceparent();
    Call.Envelope envelope =
        new Call.Envelope(
            ClientBuilder.millis("timeout", patience), scope, options.requestId(), trace);
    CompletableFuture<T> future = new CompletableFuture<>();
    Call.Outcome outcome =
        (call, answer, error) -> {
          log(call, answer, error, begun);
          if (error == null) {
            complete(future, answer, read);
          } else {
            future.completeExceptionally(error);
          }
        };
    Call call = new Call(operation, payload, envelope, begun, outcome);
    future.whenComplete(
        (result, error) -> {
          if (!call.isSettled) { // completed by the caller: nobody waits any more
            loop.forget(call);
          }
        });
    loop.submit(call);
    return future;
  }

  /** A future that has failed in place of an exception that is thrown at once. */
  private static <T> CompletableFuture<T> orFailed(Supplier<CompletableFuture<T>> start) {
    try {
      return start.get();
    } catch (BackscrollException e) {
      return CompletableFuture.failedFuture(e);
    }
  }

  private static <T> void complete(
      CompletableFuture<T> future, Answer<?> answer, Function<Answer<?>, T> read) {
    try {
      future.complete(read.apply(answer));
    } catch (IllegalArgumentException e) {
      future.completeExceptionally(Errors.internal("the daemon's result cannot be read: " + e));
    }
  }

  /**
   * The answer to a request of this type; the results of a batch have the types of its commands.
   */
  @SuppressWarnings("unchecked")
  private static <R> Answer<R> typed(Request<R> request, Answer<?> answer) {
    if (!(request instanceof Batch batch)) {
      return (Answer<R>) answer;
    }
    List<Object> results = new ArrayList<>((List<?>) answer.result());
    for (int index = 0; index < Math.min(results.size(), batch.commands().size()); index++) {
      Class<?> type = Call.infoOf(batch.commands().get(index).operation()).result().type();
      if (results.get(index) != null) {
        results.set(index, Json.convert(results.get(index), type));
      }
    }
    return (Answer<R>) new Answer<>(results, answer.seq());
  }

  static <T> T await(CompletableFuture<T> future) {
    try {
      return future.get();
    } catch (InterruptedException e) {
      future.cancel(false);
      Thread.currentThread().interrupt();
      throw new NoReplyException(
          "the thread was interrupted: whether the request took effect is unknown");
    } catch (ExecutionException e) {
      throw ((BackscrollException) e.getCause()).atCaller();
    }
  }

  /** Logs the outcome of a request. The message of a caller's error may quote what people wrote. */
  private void log(Call call, Answer<?> answer, BackscrollException error, long begun) {
    boolean isWarning = error != null && !(error instanceof CallerException);
    Level level = isWarning ? Level.WARNING : Level.DEBUG;
    if (!logger.isLoggable(level)) {
      return;
    }
    String outcome = error == null ? "ok, seq " + answer.seq() : error.code();
    if (isWarning) {
      outcome += ": " + error.getMessage();
    } else if (error != null && error.details().get("path") instanceof String path) {
      outcome += " at " + path;
    }
    long ms = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begun);
    String line = "%s: %s (request %s, %d ms)".formatted(call.operation(), outcome, call.id, ms);
    logger.log(level, line);
  }
}
