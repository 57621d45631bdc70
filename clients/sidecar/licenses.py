"""The licences of what the sidecar contains: Python packages, Python itself, and libraries of the building system."""

import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

WORDS = ("licen", "copying", "notice")


def license_files(sources: Iterable[str]) -> list[tuple[str, Path]]:
    """The licence files of these modules and libraries, each with the name of the folder that it belongs in.

    Ends the program if something is without one.
    """
    rest = {Path(source).resolve() for source in sources if source and Path(source).is_file()}
    found: dict[str, list[Path]] = {}
    for distribution in distributions():
        files = {Path(str(distribution.locate_file(file))).resolve() for file in distribution.files or []}
        if rest & files:
            found[distribution.name] = list(_of_distribution(distribution))
            rest -= files
    of_python = Path(sysconfig.get_path("stdlib"))
    for file in sorted(rest):
        package = _debian_package(file)
        if package is not None:
            found[package.partition(":")[0]] = [Path("/usr/share/doc", package.partition(":")[0], "copyright")]
        elif file.is_relative_to(of_python) or file.name.startswith("libpython"):
            found["python"] = [of_python / "LICENSE.txt"]
        elif not file.is_relative_to(Path(__file__).parent):
            found[file.name] = []
    lacking = sorted(name for name, files in found.items() if not files or not all(map(Path.is_file, files)))
    if lacking:
        sys.exit(f"no licence was found for {', '.join(lacking)}: build on Debian, or leave it out of backscroll.spec")
    return [(name, file) for name, files in sorted(found.items()) for file in files]


def _of_distribution(distribution: Distribution) -> Iterator[Path]:
    for file in distribution.files or []:
        if ".dist-info" in file.parts[0] and any(word in file.name.lower() for word in WORDS):
            yield Path(str(distribution.locate_file(file)))


def _debian_package(file: Path) -> str | None:
    """The Debian package that installed a file; None if none did."""
    names = {str(file), str(file).removeprefix("/usr")}  # it may be listed by its path from before /usr was merged
    try:
        listed = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    return listed.partition(": ")[0] or None
