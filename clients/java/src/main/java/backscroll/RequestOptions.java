package backscroll;

import java.time.Duration;

/**
 * What holds for single requests, given to {@link Client#with} or {@link
 * Client#async(RequestOptions)}. What is null is as for all requests of the client.
 *
 * @param timeout how long a request waits for its reply; the daemon does not start it later than
 *     that
 * @param requestId the id of a command, 1 to 64 bytes, preferably a ULID. To be sure of a command
 *     even across a restart of the application, store the id before, and execute the same command
 *     with it until a reply comes: it takes effect once
 * @param traceparent W3C trace context, for the daemon's log
 */
public record RequestOptions(Duration timeout, String requestId, String traceparent) {
  /**
   * Options in which nothing is set.
   *
   * @return the options
   */
  public static RequestOptions of() {
    return new RequestOptions(null, null, null);
  }

  /**
   * A copy with a timeout.
   *
   * @param timeout how long a request waits for its reply
   * @return the copy
   */
  public RequestOptions withTimeout(Duration timeout) {
    return new RequestOptions(timeout, requestId, traceparent);
  }

  /**
   * A copy with the id of a command, for one request.
   *
   * @param requestId the id, 1 to 64 bytes
   * @return the copy
   */
  public RequestOptions withRequestId(String requestId) {
    return new RequestOptions(timeout, requestId, traceparent);
  }

  /**
   * A copy with a trace context.
   *
   * @param traceparent the trace context
   * @return the copy
   */
  public RequestOptions withTraceparent(String traceparent) {
    return new RequestOptions(timeout, requestId, traceparent);
  }
}
