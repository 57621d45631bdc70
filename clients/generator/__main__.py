"""Write the generated files of all clients.

python -m backscroll.clients.generator [CHECKOUT]
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from backscroll.clients.generator import browser, rust, typescript
from backscroll.clients.generator.model import read_language
from backscroll.schema.description import describe

TEMPLATES: dict[str, Callable[[], dict[str, str]]] = {
    "clients/rust/src/generated": lambda: rust.files(read_language(describe())),
    "clients/typescript/core/src/generated": lambda: typescript.files(read_language(describe())),
    "clients/typescript/browser/src/generated": lambda: browser.files(describe()),
}
"""What writes the files of each folder, in which nothing else is."""


def generated() -> dict[str, str]:
    """The text of each generated file, by its path in the checkout."""
    return {f"{folder}/{name}": text for folder, files in TEMPLATES.items() for name, text in files().items()}


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
