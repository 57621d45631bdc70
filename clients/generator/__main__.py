"""Write the generated files of all clients.

python -m backscroll.clients.generator [CHECKOUT]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from backscroll.clients.generator import browser, c, go, java, rust, typescript
from backscroll.clients.generator.model import read_language
from backscroll.schema.description import describe

TEMPLATES: dict[str, Callable[[], dict[str, str]]] = {
    "clients/rust/src/generated": lambda: rust.files(read_language(describe())),
    "clients/typescript/core/src/generated": lambda: typescript.files(read_language(describe())),
    "clients/typescript/browser/src/generated": lambda: browser.files(describe()),
    "clients/go/language": lambda: go.files(read_language(describe())),
    "clients/c/include/backscroll": lambda: c.headers(read_language(describe())),
    "clients/c/src/generated": lambda: c.sources(read_language(describe())),
    "clients/java/src/main/java/backscroll/records": lambda: java.records(read_language(describe())),
    "clients/java/src/main/java/backscroll/requests": lambda: java.requests(read_language(describe())),
    "clients/java/src/main/java/backscroll/errors": lambda: java.errors(read_language(describe())),
}
"""What writes the files of each folder, in which nothing else is."""

BESIDE: dict[str, Callable[[], dict[str, str]]] = {"clients/go": lambda: go.beside(read_language(describe()))}
"""What writes files among those of a folder that are written by hand: a package of Go is one folder."""


def generated() -> dict[str, str]:
    """The text of each generated file, by its path in the checkout."""
    every = [*TEMPLATES.items(), *BESIDE.items()]
    return {f"{folder}/{name}": text for folder, files in every for name, text in files().items()}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        prog="python -m backscroll.clients.generator", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "checkout", type=Path, nargs="?", default=Path(), help="path of the checkout (default: the current directory)"
    )
    checkout: Path = parser.parse_args().checkout
    for name, text in generated().items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
