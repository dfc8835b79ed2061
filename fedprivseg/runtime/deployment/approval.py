"""Which apps a hospital's data manager has approved: a site runs no other."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from fedprivseg.core.documents import damaged, read_json
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.runtime.deployment import app_bundle
from fedprivseg.runtime.deployment.app_bundle import AppBundle

_HASH = re.compile(r"[0-9a-f]{64}")


def approved(path: Path) -> frozenset[str]:
    """The SHA-256 of each approved app; none if the file `path` is not there.

    Raises:
        FolderError: it is damaged; then nothing is approved.
    """
    if not path.exists():
        return frozenset()
    found = read_json(path)
    if not isinstance(found, dict) or not all(_HASH.fullmatch(each) for each in found):
        raise damaged(path, "was changed: it is no list of approved apps")
    return frozenset(found)


def approve(path: Path, app: Path, sha256: str, who: str) -> AppBundle:
    """Note in the file `path` that an app may be run.

    Args:
        path: of the list of approved apps.
        app: the app's file, as it came with the kit.
        sha256: of what was read and is approved.
        who: approves it.

    Returns:
        What the app says.

    Raises:
        RequestError: the file is not what was approved, or this package cannot run it.
    """
    content = app.read_bytes()
    found = app_bundle.read(content)
    if found.sha256 != sha256:
        raise RequestError(
            f"{app.name} has the hash {found.sha256}, and {sha256[:64]!r} was given; approve the one that you have read"
        )
    if fault := found.fault():
        raise RequestError(fault)
    entries = dict(read_json(path)) if approved(path) else {}
    entries[sha256] = {"by": who, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_durably(path, [json.dumps(entries, indent=1).encode()])
    return found
