package consumer;

import backscroll.BatchCommand;
import backscroll.Client;
import backscroll.records.Message;
import backscroll.records.MessageUpdates;
import backscroll.records.Reaction;
import backscroll.requests.SaveReaction;
import backscroll.requests.UpdateMessage;
import java.nio.file.Path;
import java.time.Instant;
import java.util.List;

/** Saves a message, changes it and reads it, with the client as a module. */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) {
    try (Client client = Client.builder().exitWithParent(true).open(Path.of(arguments[0]))) {
      client.saveMessage(Message.of("m1", "home", "Hello!", Instant.now()));
      List<BatchCommand<?>> commands =
          List.of(
              UpdateMessage.of("m1", MessageUpdates.of().withContent("Hello again!")),
              SaveReaction.of(Reaction.of("m1", "👋").withOderId("bo")));
      client.batch(commands);
      System.out.println(client.getMessageById("m1").orElseThrow().content());
    }
  }
}
