"""The app of a study as Flower carries it (FAB): the scenario, and the digest of the code that is to be run.

It is thin: its apps are those of the package that is installed at each site. One SHA-256, that of its bytes, stands for
scenario and code; each hospital approves that, and its site runs nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import final

import tomli_w

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import RequestError
from fedprivseg.core.records import digest

_FOLDER = "fedprivseg_app"
_SCENARIO, _PACKAGE, _APPS = (f"{_FOLDER}/{name}" for name in ("scenario.json", "package.json", "apps.py"))
_MOST_BYTES = 10 * 2**20
"""Most that a file of an app may have: Flower's own limit of all of them."""

# Flower looks for the apps in the module's assignments; a name that is only imported it does not find.
_APPS_PY = '''"""The apps of this study are those of the installed package; scenario.json beside this file says what they do."""

from fedprivseg.runtime.server.server_app import app as _server
from fedprivseg.runtime.site.client_app import app as _client

server = _server
client = _client
'''


@final
@dataclass(frozen=True)
class AppBundle:
    """What an app says.

    Attributes:
        sha256: of its bytes: what a hospital approves.
        scenario_text: the resolved scenario, as the server sends it.
        version: of the package with which it was made.
        code: the digest of that package's files.
    """

    sha256: str
    scenario_text: str
    version: str
    code: str

    @property
    def scenario(self) -> Scenario:
        """What is to be run."""
        return Scenario.model_validate_json(self.scenario_text)

    @property
    def scenario_digest(self) -> str:
        """By which an order names the scenario."""
        return digest(self.scenario_text.encode())

    def fault(self) -> str:
        """Why this package cannot run it; empty if it can."""
        if self.code == code_digest():
            return ""
        return (
            f"the app was made with other code than is installed here (fedprivseg {self.version} there, "
            f"{installed('fedprivseg')} here): install the same, and approve the app again"
        )


def build(scenario: Scenario) -> bytes:
    """The app of a study, as bytes.

    Args:
        scenario: resolved.
    """
    from flwr.cli.build import build_fab_from_files

    project = {
        "project": {
            "name": "fedprivseg-study",
            "version": "1.0.0",
            "description": scenario.name,
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedprivseg",
                    "fab-include": [f"{_FOLDER}/**/*.py", f"{_FOLDER}/**/*.json"],
                    "components": {"serverapp": f"{_FOLDER}.apps:server", "clientapp": f"{_FOLDER}.apps:client"},
                }
            }
        },
    }
    package = {"fedprivseg": installed("fedprivseg"), "code": code_digest()}
    files: dict[str, bytes | Path] = {
        "pyproject.toml": tomli_w.dumps(project).encode(),
        f"{_FOLDER}/__init__.py": b"",
        _APPS: _APPS_PY.encode(),
        _SCENARIO: scenario.model_dump_json().encode(),
        _PACKAGE: json.dumps(package).encode(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what Flower calls
        return build_fab_from_files(files)[0]


def read(content: bytes) -> AppBundle:
    """What stands in an app; nothing of it is unpacked or run.

    Raises:
        RequestError: it is no app of this package.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            scenario = _file(archive, _SCENARIO).decode()
            package = json.loads(_file(archive, _PACKAGE))
        return AppBundle(digest(content), scenario, str(package["fedprivseg"]), str(package["code"]))
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError):
        raise RequestError("this is no app of a study: `fedprivseg deploy init` makes one") from None


def _file(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MOST_BYTES:
        raise ValueError("too large")
    return archive.read(name)


@cache
def code_digest() -> str:
    """SHA-256 over the names and contents of all files of the installed package; READMEs, scenarios and site files are not
    among them."""
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        aside = "__pycache__" in place.parts or place.parts[0] == "starter" or place.name == "README.md"
        if path.is_file() and not aside:
            found.update(f"{place.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()
