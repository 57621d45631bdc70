package consumer;

import backscroll.Client;
import backscroll.records.Message;
import java.nio.file.Path;
import java.time.Instant;

/** Saves a message and reads it, with the client as a module. */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) {
    try (Client client = Client.builder().exitWithParent(true).open(Path.of(arguments[0]))) {
      client.saveMessage(Message.of("m1", "home", "Hello!", Instant.now()));
      System.out.println(client.getMessageById("m1").orElseThrow().content());
    }
  }
}
