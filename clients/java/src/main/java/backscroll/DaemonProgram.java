package backscroll;

import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * A program that starts a daemon.
 *
 * @param command the program and its first arguments
 * @param advice what to do if it cannot be started
 */
record DaemonProgram(List<String> command, String advice) {
  /** The system property with the directory of an unpacked sidecar. */
  private static final String SIDECAR_PROPERTY = "backscroll.sidecar";

  private static final String NAME = "backscroll";

  /** The command if one is given; or else the sidecar's; or else {@code backscroll} on the PATH. */
  static DaemonProgram find(List<String> command) {
    if (command != null) {
      return new DaemonProgram(command, "check the option `command`");
    }
    String sidecar = System.getProperty(SIDECAR_PROPERTY);
    if (sidecar != null) {
      String advice = "check the system property " + SIDECAR_PROPERTY;
      return new DaemonProgram(List.of(Path.of(sidecar, NAME).toString()), advice);
    }
    String advice =
        "install the Python package `backscroll`, or name the directory of a sidecar in the system"
            + " property "
            + SIDECAR_PROPERTY
            + ", or a program in the option `command`";
    return new DaemonProgram(List.of(NAME), advice);
  }

  /** The file of a program, which is looked for on the PATH if it is only a name. */
  static Optional<Path> file(String program) {
    if (program.contains(File.separator)) {
      return Optional.of(Path.of(program)).filter(Files::isExecutable);
    }
    String path = Address.variable("PATH");
    return Stream.of((path == null ? "" : path).split(File.pathSeparator))
        .filter(each -> !each.isEmpty())
        .map(each -> Path.of(each, program))
        .filter(each -> Files.isRegularFile(each) && Files.isExecutable(each))
        .findFirst();
  }
}
