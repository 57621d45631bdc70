package backscroll;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;

/**
 * Tells the log and the application's listener of a client's connections.
 *
 * @param listener the application's, which may throw
 */
record Connections(ConnectionListener listener, Logger logger) implements EventLoop.Events {
  @Override
  public void connected() {
    logger.log(Level.DEBUG, "connected");
    tell(listener::connected);
  }

  @Override
  public void lost(BackscrollException problem) {
    logger.log(Level.WARNING, "not connected: " + problem.code() + ": " + problem.getMessage());
    tell(() -> listener.disconnected(problem));
  }

  @Override
  public void failed(Throwable problem) {
    logger.log(Level.ERROR, "the client's thread has ended, and nothing is sent any more", problem);
  }

  private void tell(Runnable event) {
    try {
      event.run();
    } catch (RuntimeException e) {
      logger.log(Level.WARNING, "the connection listener failed", e);
    }
  }
}
