"""Write the generated files: the tables in the documentation, and the description of the current protocol level.

    python -m backscroll.schema [CHECKOUT] [--break-level]

`schema/levels/N.json` is the contract with clients of level N. It is not overwritten if the new description would
break them; `--break-level` overwrites it anyway, which is allowed only while the level is unpublished.
"""

import argparse
import json
import sys
from pathlib import Path

from backscroll.schema.compatibility import compare
from backscroll.schema.description import describe
from backscroll.schema.pages import generate
from backscroll.schema.wire import PROTOCOL_LEVEL

PAGES = ("README.md", "schema/PROTOCOL.md")


def main() -> int:
    """Write the files and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m backscroll.schema", description=__doc__.split("\n")[0])
    parser.add_argument(
        "checkout", type=Path, nargs="?", default=Path(), help="path of the checkout (default: the current directory)"
    )
    parser.add_argument("--break-level", action="store_true", help="write the level even if it breaks its clients")
    options = parser.parse_args()
    for name in PAGES:
        page = options.checkout / name
        page.write_text(generate(page.read_text(encoding="utf-8")), encoding="utf-8")
    return _write_level(options.checkout / "schema" / "levels" / f"{PROTOCOL_LEVEL}.json", options.break_level)


def _write_level(path: Path, break_level: bool) -> int:
    if path.exists():
        breaking, additions = compare(json.loads(path.read_text(encoding="utf-8")), describe())
        sys.stdout.writelines(f"new: {each}\n" for each in additions)
        if breaking and not break_level:
            sys.stderr.writelines(f"breaks clients of level {PROTOCOL_LEVEL}: {each}\n" for each in breaking)
            sys.stderr.write("Raise PROTOCOL_LEVEL in schema/wire.py and keep the old behaviour for older clients.\n")
            return 1
    path.write_text(json.dumps(describe(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
