package backscroll;

import backscroll.requests.Limits;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Locale;
import java.util.Set;

/**
 * ZMTP 3.0 with the mechanism NULL, as a DEALER: greeting, READY, and then frames. A message is one
 * frame, the body. It has no I/O: bytes come in pieces of any size.
 */
final class ZmtpDecoder {
  private static final int GREETING_BYTES = 64;
  private static final byte[] GREETING =
      Arrays.copyOf(bytes("\377\0\0\0\0\0\0\0\0\177\3\0NULL"), GREETING_BYTES);
  private static final byte[] READY =
      bytes("\4\34\5READY\13Socket-Type\0\0\0\6DEALER"); // with the header of its frame
  private static final int NAME_BYTES = 6; // of READY and ERROR, with their size before them
  private static final int MORE = 1;
  private static final int LONG = 2;
  private static final int COMMAND = 4;
  private static final int HEADER_BYTES = 9;

  /** So much of a socket's type is quoted: whoever sent it may be anybody. */
  private static final int TYPE_CHARS_MAX = 64;

  /** The types of sockets that a DEALER talks to; a daemon has a ROUTER. */
  private static final Set<String> PEERS = Set.of("ROUTER", "DEALER", "REP");

  /** What the bytes say. After {@code refused} no more may be given. */
  interface Events {
    /** The greeting was read, and this is to be sent. */
    void greeted(ByteBuffer answer);

    /** The other side is ready. */
    void ready();

    void message(byte[] body);

    /** The bytes are not those of a daemon that serves this client. */
    void refused(String reason);
  }

  private enum State {
    GREETING,
    HANDSHAKE,
    READY
  }

  private final Events events;
  private State state = State.GREETING;

  /** What is read next: a greeting, the header of a frame, or its body. */
  private ByteBuffer part = ByteBuffer.allocate(GREETING_BYTES);

  private int flags = -1; // of the frame whose body is read

  ZmtpDecoder(Events events) {
    this.events = events;
  }

  /** What this client sends first. */
  static ByteBuffer greeting() {
    return ByteBuffer.wrap(GREETING);
  }

  /** What is sent before the body of a message. */
  static ByteBuffer header(long size) {
    return ByteBuffer.allocate(HEADER_BYTES).put((byte) LONG).putLong(size).flip();
  }

  /** Takes some of the bytes, up to the end of the part that is read. */
  void take(ByteBuffer bytes) {
    ZmtpConnection.move(bytes, part);
    if (state == State.GREETING) {
      readGreeting();
    } else if (flags < 0) {
      readHeader();
    } else if (!part.hasRemaining()) {
      readFrame();
    }
  }

  private void readGreeting() {
    byte[] greeting = part.array();
    if (greeting[0] == GREETING[0] && part.hasRemaining()) {
      return;
    }
    boolean isZmtp = greeting[0] == GREETING[0] && greeting[9] == GREETING[9] && greeting[10] >= 3;
    String mechanism = text(greeting, 12, 20).replace("\0", "");
    if (!isZmtp) {
      events.refused("what answers there does not speak ZMTP 3: it is no backscroll daemon");
    } else if (!mechanism.equals("NULL")) {
      events.refused(
          "the daemon asks for the mechanism " + mechanism + ", which this client lacks");
    } else {
      state = State.HANDSHAKE;
      part = ByteBuffer.allocate(HEADER_BYTES).limit(2);
      events.greeted(ByteBuffer.wrap(READY));
    }
  }

  private void readHeader() {
    int found = part.get(0);
    boolean isLong = (found & LONG) != 0;
    part.limit(isLong ? HEADER_BYTES : 2);
    if (part.hasRemaining()) {
      return;
    }
    long size = isLong ? part.getLong(1) : part.get(1) & 0xff;
    if (size < 0 || size > Limits.FRAME_BYTES) {
      events.refused("the daemon sent a frame of " + Long.toUnsignedString(size) + " bytes");
      return;
    }
    flags = found & 0xff;
    part = ByteBuffer.allocate((int) size);
    if (size == 0) {
      readFrame();
    }
  }

  private void readFrame() {
    byte[] body = part.array();
    int found = flags;
    flags = -1;
    part = ByteBuffer.allocate(HEADER_BYTES).limit(2);
    if ((found & COMMAND) != 0) {
      readCommand(body);
    } else if (state != State.READY) {
      events.refused("the daemon sent a message before it was ready");
    } else if ((found & MORE) == 0) {
      events.message(body); // frames before the body carry nothing for a DEALER
    }
  }

  private void readCommand(byte[] body) {
    String name = text(body, 1, body.length == 0 ? 0 : body[0] & 0xff);
    if (name.equals("ERROR")) {
      int size = body.length > NAME_BYTES ? body[NAME_BYTES] & 0xff : 0;
      events.refused("the daemon refused the connection: " + text(body, NAME_BYTES + 1, size));
    } else if (name.equals("READY") && state == State.HANDSHAKE) {
      String type = socketType(ByteBuffer.wrap(body, NAME_BYTES, body.length - NAME_BYTES));
      if (PEERS.contains(type)) {
        state = State.READY;
        events.ready();
      } else {
        String quoted = type.substring(0, Math.min(type.length(), TYPE_CHARS_MAX));
        events.refused("what answers there is a \"" + quoted + "\", no daemon's socket");
      }
    }
  }

  /**
   * The socket's type in the data of READY, whose names are in any case; empty if there is none.
   */
  private static String socketType(ByteBuffer data) {
    while (data.remaining() > 1) {
      int nameBytes = data.get() & 0xff;
      if (data.remaining() < nameBytes + 4) {
        break;
      }
      String name = text(data.array(), data.position(), nameBytes);
      data.position(data.position() + nameBytes);
      int valueBytes = Math.min(Math.max(data.getInt(), 0), data.remaining());
      if (name.toLowerCase(Locale.ROOT).equals("socket-type")) {
        return text(data.array(), data.position(), valueBytes);
      }
      data.position(data.position() + valueBytes);
    }
    return "";
  }

  /** So many bytes of an array as text, or fewer if it has no more. */
  private static String text(byte[] bytes, int from, int size) {
    int begin = Math.min(from, bytes.length);
    return new String(
        bytes, begin, Math.min(size, bytes.length - begin), StandardCharsets.ISO_8859_1);
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.ISO_8859_1);
  }
}
