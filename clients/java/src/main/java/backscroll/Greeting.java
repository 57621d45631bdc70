package backscroll;

import backscroll.errors.UnauthenticatedException;
import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * The question whose answer proves that the daemon knows a token, before the token is sent:
 * whatever listens on a tcp port may be another program, after a daemon was killed.
 */
final class Greeting {
  private static final String HELLO_PREFIX = "backscroll-hello";
  private static final String HMAC = "HmacSHA256";
  private static final int NONCE_BYTES = 16;

  /** So much of an error code is quoted: whoever sent it may be anybody. */
  private static final int CODE_CHARS_MAX = 64;

  private static final SecureRandom RANDOM = new SecureRandom();

  private final Address address;
  private final String nonce;

  Greeting(Address address) {
    this.address = address;
    byte[] random = new byte[NONCE_BYTES];
    RANDOM.nextBytes(random);
    nonce = HexFormat.of().formatHex(random);
  }

  byte[] request() {
    Map<String, String> payload = new LinkedHashMap<>(Map.of("nonce", nonce));
    if (!tokenName().isEmpty()) {
      payload.put("name", tokenName());
    }
    Map<String, Object> request = new LinkedHashMap<>();
    request.put("id", "hello-" + nonce);
    request.put("type", "hello");
    request.put("payload", payload);
    try {
      return Json.writeRequest(request);
    } catch (IOException e) {
      throw Errors.invalid("the token's name cannot be written: " + e.getMessage());
    }
  }

  /** The error for an answer that proves nothing; null if it does. */
  BackscrollException problemWith(byte[] body) {
    JsonNode reply = parsed(body);
    if (isProven(reply.path("result"))) {
      return null;
    }
    String code = reply.path("error").path("code").textValue();
    if ("unauthenticated".equals(code)) {
      String message =
          "the daemon at "
              + address.endpoint()
              + " does not know the token \""
              + tokenName()
              + "\": it was revoked, has expired, or is for another daemon; nothing was sent";
      return new UnauthenticatedException(new ErrorReply(code, message, "caller", false, null));
    }
    return Errors.unavailable(
        "whatever answers at "
            + address.endpoint()
            + " did not prove that it knows the token"
            + (code == null ? "" : " and answered " + quoted(code))
            + ": it is another program, or the token is wrong or for another daemon; nothing was"
            + " sent");
  }

  /** Whether this is a proof about this token, this nonce, and a daemon bound to this port. */
  private boolean isProven(JsonNode result) {
    if (!result.path("proof").isTextual() || !result.path("endpoints").isArray()) {
      return false;
    }
    List<String> endpoints = new ArrayList<>();
    for (JsonNode each : result.get("endpoints")) {
      if (each.isTextual()) {
        endpoints.add(each.textValue());
      }
    }
    byte[] given = result.get("proof").textValue().getBytes(StandardCharsets.UTF_8);
    byte[] expected = proofOf(address.token(), nonce, endpoints).getBytes(StandardCharsets.UTF_8);
    String port = Address.portOf(address.endpoint());
    return MessageDigest.isEqual(given, expected)
        && endpoints.stream().map(Address::portOf).anyMatch(port::equals);
  }

  /** The name in a token such as {@code bot.q8Jx…}; the start token has none. */
  private String tokenName() {
    return address.token().substring(0, Math.max(0, address.token().lastIndexOf('.')));
  }

  /** What a daemon that knows a token answers to {@code hello}, in hex. */
  static String proofOf(String token, String nonce, List<String> endpoints) {
    List<String> lines = new ArrayList<>(List.of(HELLO_PREFIX, nonce));
    lines.addAll(endpoints);
    byte[] key = Address.sha256(token.getBytes(StandardCharsets.UTF_8));
    try {
      Mac mac = Mac.getInstance(HMAC);
      mac.init(new SecretKeySpec(key, HMAC));
      byte[] text = String.join("\n", lines).getBytes(StandardCharsets.UTF_8);
      return HexFormat.of().formatHex(mac.doFinal(text));
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e); // every Java has it
    }
  }

  private static String quoted(String code) {
    return Json.quoted(code.substring(0, Math.min(code.length(), CODE_CHARS_MAX)));
  }

  private static JsonNode parsed(byte[] body) {
    try {
      return Json.tree(body);
    } catch (IOException e) {
      return MissingNode.getInstance();
    }
  }
}
