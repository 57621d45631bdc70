"""Reading migrations: SQL files with numbers, in packages of their own."""

from importlib import resources


def scripts_in(package: str) -> list[str]:
    """The SQL of every migration in a package, in order: `0001_….sql` creates version 1, and so on."""
    scripts = sorted(
        (entry for entry in resources.files(package).iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    for number, script in enumerate(scripts, start=1):
        assert script.name.startswith(f"{number:04}_"), f"migration {script.name} is not number {number}"
    return [script.read_text(encoding="utf-8") for script in scripts]
