package backscroll;

import java.security.SecureRandom;

/** ULIDs: ids of 26 characters that sort by time, which keeps the daemon's indexes compact. */
final class Ulid {
  private static final char[] ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ".toCharArray();
  private static final int CHARS = 26;
  private static final int BITS_OF_CHAR = 5;
  private static final int RANDOM_BITS_HIGH = 16;
  private static final SecureRandom RANDOM = new SecureRandom();

  /** The latest one: 48 bits of time and 16 random ones, and 64 further random bits. */
  private static long high;

  private static long low;

  private Ulid() {}

  /** A new id, greater than the one before even if the clock goes back. */
  static synchronized String next() {
    long now = System.currentTimeMillis();
    if (now > high >>> RANDOM_BITS_HIGH) {
      high = now << RANDOM_BITS_HIGH | RANDOM.nextInt(1 << RANDOM_BITS_HIGH);
      low = RANDOM.nextLong();
    } else if (++low == 0) {
      high++;
    }
    return written(high, low);
  }

  private static String written(long high, long low) {
    char[] text = new char[CHARS];
    for (int at = CHARS - 1; at >= 0; at--) {
      text[at] = ALPHABET[(int) low & 31];
      low = low >>> BITS_OF_CHAR | high << (Long.SIZE - BITS_OF_CHAR);
      high >>>= BITS_OF_CHAR;
    }
    return new String(text);
  }
}
