package backscroll;

import backscroll.internal.Json;
import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** A daemon that serves a directory; it is killed and started again as a test says. */
final class TestDaemon implements AutoCloseable {
  final Path dataDir;
  private final String[] flags;
  private Process process;

  TestDaemon(Path dataDir, String... flags) {
    this.dataDir = dataDir;
    this.flags = flags;
  }

  void start() throws IOException {
    List<String> command = new ArrayList<>(List.of(Scene.BACKSCROLL, "serve", "--data-dir"));
    command.addAll(List.of(dataDir.toString(), "--exit-with-parent"));
    command.addAll(List.of(flags));
    process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.DISCARD).start();
    if (process.inputReader().readLine() == null) {
      throw new IOException("the daemon ended with " + process.onExit().join().exitValue());
    }
  }

  void kill() {
    if (process == null) {
      return;
    }
    process.destroyForcibly();
    process.onExit().join();
  }

  void restart() throws IOException {
    kill();
    start();
  }

  /** Sends a signal, such as STOP. */
  void signal(String name) throws IOException, InterruptedException {
    new ProcessBuilder("kill", "-" + name, String.valueOf(process.pid())).start().waitFor();
  }

  JsonNode ready() throws IOException {
    return Json.tree(Files.readAllBytes(dataDir.resolve("endpoint.json")));
  }

  String endpoint() throws IOException {
    return ready().get("endpoints").get(0).textValue();
  }

  @Override
  public void close() {
    kill();
  }
}
