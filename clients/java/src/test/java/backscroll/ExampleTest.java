package backscroll;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import backscroll.records.LogEntry;
import backscroll.requests.OperationTable;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.lang.reflect.Method;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.api.parallel.Isolated;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * The README's example: word for word, and with a daemon that is killed in the middle. It waits
 * only five seconds for each reply, so no other test runs meanwhile.
 */
@Isolated
class ExampleTest {
  private static final Path EXAMPLE = Path.of("example", "Example.java");
  private static final String PRINTED = "ada: Hello! 👋\n";

  @RegisterExtension final Scene scene = new Scene();

  @TempDir static Path classes;

  private static final String DEPENDENCIES = System.getProperty("java.class.path");

  private static final Pattern OF_OPERATIONS =
      Pattern.compile("<pre>(?:\\{@code)?\n(.*?)\n   \\* }?</pre>", Pattern.DOTALL);

  @BeforeAll
  static void compile() {
    assertEquals(0, compiled(EXAMPLE));
  }

  private static int compiled(Path file) {
    return ToolProvider.getSystemJavaCompiler()
        .run(
            null,
            null,
            null,
            "-encoding",
            "UTF-8",
            "-cp",
            DEPENDENCIES,
            "-d",
            classes.toString(),
            file.toString());
  }

  /** What the example prints with a daemon's directory. */
  private static String run(Path dataDir) throws IOException, InterruptedException {
    String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
    String classPath = classes + File.pathSeparator + DEPENDENCIES;
    ProcessBuilder builder =
        new ProcessBuilder(
            java, "-Dfile.encoding=UTF-8", "-cp", classPath, "Example", dataDir.toString());
    Process process = builder.redirectError(ProcessBuilder.Redirect.INHERIT).start();
    byte[] printed = process.getInputStream().readAllBytes();
    assertEquals(0, process.waitFor());
    return new String(printed, StandardCharsets.UTF_8);
  }

  /** What the example prints when it runs in this process, which takes less than one of its own. */
  private static String runHere(Path dataDir) throws Exception {
    PrintStream before = System.out;
    ByteArrayOutputStream printed = new ByteArrayOutputStream();
    System.setOut(new PrintStream(printed, true, StandardCharsets.UTF_8));
    try (URLClassLoader loader = new URLClassLoader(new URL[] {classes.toUri().toURL()})) {
      Method main = loader.loadClass("Example").getMethod("main", String[].class);
      main.invoke(null, (Object) new String[] {dataDir.toString()});
    } finally {
      System.setOut(before);
    }
    return printed.toString(StandardCharsets.UTF_8);
  }

  /** The README shows the example as it is. */
  @Test
  void readmeShowsTheExample() throws IOException {
    String code = Files.readString(EXAMPLE);
    assertTrue(Files.readString(Path.of("README.md")).contains("```java\n" + code + "```"));
  }

  /** The example of each operation, in its documentation, compiles. */
  @Test
  void examplesOfOperationsCompile() throws IOException {
    Path operations = Path.of("src", "main", "java", "backscroll", "requests", "Operations.java");
    Matcher found = OF_OPERATIONS.matcher(Files.readString(operations));
    StringBuilder program = new StringBuilder();
    for (String each : List.of("backscroll", "backscroll.records", "backscroll.requests")) {
      program.append("import ").append(each).append(".*;\n");
    }
    program.append("import java.time.*;\nimport java.util.*;\nclass Examples {\n");
    int count = 0;
    while (found.find()) {
      String code = found.group(1).replaceAll("(?m)^   \\* ?", "");
      String plain = code.replace("&#123;", "{").replace("&#125;", "}").replace("&gt;", ">");
      String text = plain.replace("&lt;", "<").replace("&amp;", "&");
      program
          .append("void e")
          .append(count++)
          .append("(Client client) {")
          .append(text)
          .append("}\n");
    }
    assertTrue(count > OperationTable.OPERATIONS.size());
    Path file = classes.resolve("Examples.java");
    Files.writeString(file, program.append("}\n"));
    assertEquals(0, compiled(file));
  }

  /** The example runs. */
  @Test
  void exampleRuns() throws Exception {
    assertEquals(PRINTED, run(scene.daemon().dataDir));
  }

  /**
   * A daemon that is killed once, at a request of a type or when its reply has come, which is then
   * not passed on, loses nothing, and nothing is done twice.
   */
  @ParameterizedTest
  @CsvSource({
    "save-message, request",
    "save-message, reply",
    "save-reaction, request",
    "save-reaction, reply",
    "get-message-page, request",
    "get-message-page, reply"
  })
  void daemonIsKilled(String type, String when) throws Exception {
    TestDaemon daemon = scene.daemon();
    Path dataDir = scene.directory();
    Path path = dataDir.resolve("relay");
    Relay relay = scene.closed(Relay.ipc(path, daemon.endpoint()));
    AtomicBoolean isAsked = new AtomicBoolean();
    AtomicBoolean isKilled = new AtomicBoolean();
    relay.sends =
        text -> {
          boolean isIt = !isKilled.get() && text.contains("\"type\":\"" + type + "\"");
          isAsked.compareAndSet(false, isIt);
          return isIt && when.equals("request") ? killed(daemon, relay, isKilled) : text;
        };
    relay.gets = text -> isAsked.get() && !isKilled.get() ? killed(daemon, relay, isKilled) : text;
    String ready = "{\"endpoints\": [\"ipc://" + path + "\"]}";
    Files.writeString(dataDir.resolve("endpoint.json"), ready);
    assertEquals(PRINTED, runHere(dataDir));
    assertTrue(isKilled.get());
    List<String> executed =
        scene.client(daemon.dataDir).getLog().entries().stream().map(LogEntry::type).toList();
    assertEquals(List.of("save-message", "save-reaction"), executed);
  }

  /** Kills the daemon and starts it again; what came is not passed on. */
  private static String killed(TestDaemon daemon, Relay relay, AtomicBoolean isKilled) {
    try {
      isKilled.set(true);
      daemon.kill();
      relay.cut();
      daemon.start();
      return null;
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }
}
