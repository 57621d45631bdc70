package backscroll;

import java.lang.System.Logger.Level;

/** Tells the log and the application's listener of a client's connections. */
final class Connections implements EventLoop.Events {
  private final ConnectionListener listener;
  private final SafeLogger logger;

  /** Whether it was said already that there is no connection. */
  private boolean isLost;

  Connections(ConnectionListener listener, SafeLogger logger) {
    this.listener = listener;
    this.logger = logger;
  }

  @Override
  public void connected() {
    isLost = false;
    logger.log(Level.DEBUG, "connected");
    tell(listener::connected);
  }

  @Override
  public void lost(BackscrollException problem) {
    Level level = isLost ? Level.DEBUG : Level.WARNING;
    isLost = true;
    logger.log(level, "not connected: " + problem.code() + ": " + problem.getMessage());
    tell(() -> listener.disconnected(problem));
  }

  @Override
  public void failed(Throwable problem) {
    logger.log(Level.ERROR, "the client's thread has ended, and nothing is sent any more", problem);
  }

  /** Calls what the application gave, which may throw. */
  private void tell(Runnable event) {
    try {
      event.run();
    } catch (RuntimeException e) {
      logger.log(Level.WARNING, "the connection listener failed", e);
    }
  }
}
