"""The sidecar: what can be checked of it without building it. `.ci/run` builds it and checks the rest."""

import json
import re
import tomllib

from tests import ROOT


def test_the_npm_client_brings_the_sidecar_of_its_version() -> None:
    """`clients/sidecar/build_sidecar.py --versions` would change nothing, and `open` looks for the same packages."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    client = ROOT / "clients/typescript/core"
    manifest = json.loads((client / "package.json").read_text(encoding="utf-8"))
    looked_for = re.findall(r'"(@backscroll/[\w-]+)"', (client / "src/sidecar.ts").read_text(encoding="utf-8"))
    assert manifest["version"] == version
    assert manifest["optionalDependencies"] == dict.fromkeys(looked_for, version)
