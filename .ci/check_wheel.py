"""Check what a wheel would install: Python below `backscroll/`, with types, migrations, protocol page and level."""

import sys
import zipfile

MUST_HAVE = (
    "backscroll/schema/py.typed",
    "backscroll/schema/PROTOCOL.md",
    "backscroll/schema/levels/1.json",
    "backscroll/schema/migrations/sqlite/0001_initial.sql",
    "backscroll/bus/__main__.py",
)
NOT_INSTALLED = tuple(f"backscroll/clients/{each}/" for each in ("c", "go", "java", "rust", "sidecar", "typescript"))


def problems(names: list[str]) -> list[str]:
    """What is wrong with a wheel of these files."""
    stray = [name for name in names if not name.startswith("backscroll/") and ".dist-info/" not in name]
    stray += [name for name in names if name.startswith(NOT_INSTALLED)]
    missing = [name for name in MUST_HAVE if name not in names]
    return [f"would install {name}" for name in stray] + [f"lacks {name}" for name in missing]


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        found = problems(wheel.namelist())
    if found:
        sys.exit("\n".join(found))
