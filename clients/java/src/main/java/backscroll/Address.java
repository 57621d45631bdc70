package backscroll;

import backscroll.errors.UnauthenticatedException;
import backscroll.internal.Json;
import backscroll.requests.Limits;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;

/**
 * Where a daemon is.
 *
 * @param endpoint its address
 * @param token over tcp the token that it asks for, otherwise null
 */
record Address(String endpoint, String token) {
  private static final String IPC = "ipc://";
  private static final String ENDPOINT_FILE = "endpoint.json";
  private static final String TOKEN_VARIABLE = "BACKSCROLL_TOKEN";
  private static final String DIRECTORY_VARIABLE = "BACKSCROLL_DATA_DIR";
  private static final Pattern TCP = Pattern.compile("tcp://(.+):(\\d{1,5})");
  private static final Pattern LOOPBACK =
      Pattern.compile("(\\w+://)(?:127\\.0\\.0\\.1|\\[::1]|localhost)(:\\d+)");
  private static final Pattern NOT_PRINTABLE = Pattern.compile("[\\p{C}\\p{Zl}\\p{Zp}]");
  private static final int PORT_MAX = 65_535;
  private static final int HASH_CHARS = 16;

  /** How a client was told to find its daemon; what is null is found in the usual places. */
  record Location(Path dataDir, String endpoint, String token) {}

  /** What a ready daemon wrote into its data directory. */
  private record Announced(List<String> endpoints, String token) {
    private boolean lists(String endpoint) {
      return endpoints.stream()
          .map(Address::withOneLoopback)
          .anyMatch(withOneLoopback(endpoint)::equals);
    }

    /** The first endpoint that this client can use, or else one that it cannot, or null. */
    private String usable() {
      Stream<String> usable = endpoints.stream().filter(each -> !each.startsWith("curve://"));
      return usable.findFirst().orElse(endpoints.isEmpty() ? null : endpoints.get(0));
    }
  }

  /**
   * Finds the daemon. Its files are read anew each time, because a daemon that was started again
   * may have another address and another token. Throws {@link
   * backscroll.errors.UnavailableException} if none is ready, and {@link UnauthenticatedException}
   * if there is no token for it.
   */
  static Address find(Location location) {
    if (location.endpoint() != null && location.endpoint().startsWith(IPC)) {
      return new Address(location.endpoint(), null);
    }
    Path directory = location.dataDir() == null ? defaultDataDir() : location.dataDir();
    Announced announced = announcedIn(directory);
    String endpoint = location.endpoint() == null ? announced.usable() : location.endpoint();
    if (endpoint == null) {
      throw Errors.unavailable(
          "no daemon is ready in "
              + directory
              + ": start one with `backscroll serve --data-dir "
              + directory
              + "`, or have Client.open start it");
    }
    return new Address(
        endpoint, endpoint.startsWith(IPC) ? null : tokenFor(endpoint, location, announced));
  }

  private static String tokenFor(String endpoint, Location location, Announced announced) {
    String ofDaemon = announced.lists(endpoint) ? announced.token() : null;
    String ofVariable = System.getenv(TOKEN_VARIABLE);
    Stream<String> sources =
        location.endpoint() == null
            ? Stream.of(location.token(), ofDaemon, ofVariable)
            : Stream.of(location.token(), ofVariable, ofDaemon);
    String token =
        sources
            .filter(each -> each != null && !each.isEmpty())
            .findFirst()
            .orElseThrow(() -> withoutToken(endpoint));
    int bytes = token.getBytes(StandardCharsets.UTF_8).length;
    if (NOT_PRINTABLE.matcher(token).find() || bytes > Limits.AUTH_BYTES) {
      String rule = "it must be printable text of at most " + Limits.AUTH_BYTES + " bytes";
      throw Errors.invalid("the token for " + endpoint + " is none: " + rule);
    }
    return token;
  }

  private static UnauthenticatedException withoutToken(String endpoint) {
    String message =
        "there is no token for "
            + endpoint
            + ": name the daemon's data directory, or give a token made by `backscroll token"
            + " create`, as `token` or in the environment variable "
            + TOKEN_VARIABLE;
    return new UnauthenticatedException(
        new ErrorReply("unauthenticated", message, "caller", false, null));
  }

  /** Where to connect to; throws if it is no address that this client can use. */
  static SocketAddress target(String endpoint) {
    Matcher tcp = TCP.matcher(endpoint);
    try {
      if (endpoint.startsWith(IPC) && endpoint.length() > IPC.length()) {
        return UnixDomainSocketAddress.of(endpoint.substring(IPC.length()));
      }
      if (tcp.matches() && Integer.parseInt(tcp.group(2)) <= PORT_MAX) {
        int port = Integer.parseInt(tcp.group(2));
        if (port > 0) {
          String host = tcp.group(1).replaceFirst("^\\[(.*)]$", "$1");
          return InetSocketAddress.createUnresolved(host, port);
        }
      }
    } catch (InvalidPathException e) {
      // said below
    }
    String hint =
        endpoint.startsWith("curve://")
            ? "this client has no CURVE: use ipc, or tcp on the same machine"
            : "an address is such as tcp://127.0.0.1:5555 or ipc:///PATH";
    throw Errors.invalid("cannot connect to " + Json.quoted(endpoint) + ": " + hint);
  }

  /** The platform's directory for the data of this user, or the one that the environment names. */
  static Path defaultDataDir() {
    String named = variable(DIRECTORY_VARIABLE);
    if (named != null) {
      return Path.of(named.replaceFirst("^~(?=$|/)", Matcher.quoteReplacement(home())));
    }
    String system = System.getProperty("os.name").toLowerCase(Locale.ROOT);
    if (system.startsWith("mac")) {
      return Path.of(home(), "Library", "Application Support", "backscroll");
    }
    if (system.startsWith("windows")) {
      String local = variable("LOCALAPPDATA");
      Path data = local == null ? Path.of(home(), "AppData", "Local") : Path.of(local);
      return data.resolve("backscroll");
    }
    String data = variable("XDG_DATA_HOME");
    Path folder = data == null ? Path.of(home(), ".local", "share") : Path.of(data);
    return folder.resolve("backscroll");
  }

  /** An environment variable; null if it is unset or empty. */
  static String variable(String name) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? null : value;
  }

  static String portOf(String endpoint) {
    return endpoint.substring(endpoint.lastIndexOf(':') + 1);
  }

  /** A digest of bytes. */
  static byte[] sha256(byte[] bytes) {
    return newSha256().digest(bytes);
  }

  static MessageDigest newSha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (java.security.NoSuchAlgorithmException e) {
      throw new IllegalStateException(e); // every Java has it
    }
  }

  private static String home() {
    String home = System.getProperty("user.home");
    if (home == null || home.isEmpty() || home.equals("?")) {
      throw Errors.invalid(
          "this user has no home directory: name a data directory, as `dataDir` or in "
              + DIRECTORY_VARIABLE);
    }
    return home;
  }

  /** What a ready daemon wrote, which is elsewhere if it cannot write into its data directory. */
  private static Announced announcedIn(Path directory) {
    Path place = runtimeDir(directory);
    boolean isOurs = place != null && isOwn(place.getParent());
    Announced elsewhere = isOurs ? read(place.resolve(ENDPOINT_FILE)) : null;
    Announced found = elsewhere == null ? read(directory.resolve(ENDPOINT_FILE)) : elsewhere;
    return Objects.requireNonNullElse(found, new Announced(List.of(), null));
  }

  private static Announced read(Path file) {
    try {
      JsonNode read = Json.tree(Files.readAllBytes(file));
      if (!read.path("endpoints").isArray()) {
        return null;
      }
      List<String> endpoints = new ArrayList<>();
      read.get("endpoints").forEach(each -> endpoints.add(each.asText()));
      return new Announced(endpoints, read.path("token").textValue());
    } catch (IOException e) {
      return null; // it is missing, or being replaced
    }
  }

  private static Path runtimeDir(Path directory) {
    Object uid = userId();
    if (uid == null) {
      return null;
    }
    Path real = directory.toAbsolutePath().normalize();
    try {
      real = directory.toRealPath();
    } catch (IOException e) {
      // it does not exist yet
    }
    byte[] digest = sha256(real.toString().getBytes(StandardCharsets.UTF_8));
    String hash = HexFormat.of().formatHex(digest).substring(0, HASH_CHARS);
    String runtime = variable("XDG_RUNTIME_DIR");
    Path folder = Path.of(runtime == null ? temporaryDir() : runtime);
    return folder.resolve("backscroll-" + uid).resolve(hash);
  }

  private static String temporaryDir() {
    String named = variable("TMPDIR");
    return named == null ? "/tmp" : named;
  }

  /** The id of this user; null where the system has none. */
  private static Object userId() {
    try {
      return Files.getAttribute(Path.of("/proc/self"), "unix:uid");
    } catch (IOException | RuntimeException e) {
      return null;
    }
  }

  /** Whether a directory is this user's: others can make one of any name among temporary files. */
  private static boolean isOwn(Path directory) {
    try {
      return Files.isDirectory(directory, LinkOption.NOFOLLOW_LINKS)
          && Files.getAttribute(directory, "unix:uid", LinkOption.NOFOLLOW_LINKS).equals(userId());
    } catch (IOException | RuntimeException e) {
      return false;
    }
  }

  /** The endpoint with the same name for all loopback hosts, which differ only in the port. */
  private static String withOneLoopback(String endpoint) {
    return LOOPBACK.matcher(endpoint).replaceFirst("$1localhost$2");
  }
}
