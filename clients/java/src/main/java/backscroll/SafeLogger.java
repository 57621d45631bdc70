package backscroll;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;

/**
 * The application's logger, which harms no request if it fails.
 *
 * @param logger the application's
 */
record SafeLogger(Logger logger) {
  boolean isLoggable(Level level) {
    try {
      return logger.isLoggable(level);
    } catch (RuntimeException e) {
      return false;
    }
  }

  void log(Level level, String line) {
    log(level, line, null);
  }

  void log(Level level, String line, Throwable thrown) {
    try {
      logger.log(level, line, thrown);
    } catch (RuntimeException e) {
      // It has nowhere to say so.
    }
  }
}
