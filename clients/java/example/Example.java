// Save a message and read its room: java -cp … Example.java [DATA_DIR]
import backscroll.Client;
import backscroll.records.Message;
import backscroll.records.Reaction;
import backscroll.requests.GetMessagePage;
import java.nio.file.Path;
import java.time.Instant;

public class Example {
  public static void main(String[] arguments) {
    Path dataDir = Path.of(arguments.length > 0 ? arguments[0] : "data");
    try (Client client = Client.open(dataDir)) { // starts a daemon if none serves the directory
      client.saveMessage(Message.of("m1", "home", "Hello!", Instant.now()).withSenderId("ada"));
      client.saveReaction(Reaction.of("m1", "👋").withOderId("bo"));
      GetMessagePage page = GetMessagePage.of("home").withLimit(50);
      for (Message each : client.getMessagePage(page).messages()) {
        System.out.print(each.senderId() + ": " + each.content());
        each.reactions().forEach(reaction -> System.out.print(" " + reaction.emoji()));
        System.out.println();
      }
    }
  }
}
