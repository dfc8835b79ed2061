"""JSON documents of a run's folder: whole when they are written, checked when they are read.

A document carries the SHA-256 of what it says (`STAMP`). One that was damaged or edited afterwards is then not read as what it
never was: a digit that changed on the disk would otherwise be another result. It is no signature: whoever wants to deceive
computes it again. Documents without it, of earlier releases, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedprivseg.core.errors import FolderError
from fedprivseg.core.files import write_text

STAMP = "sha256"
"""The key of a document under which its digest stands."""

REMEDY = "Put back a copy of it, or run the scenario into another folder"
"""What helps against any damage."""


def content_of(path: Path, remedy: str = REMEDY, most: int = -1) -> bytes:
    """The bytes of a file of a run's folder that must be there and hold something.

    path: the file. remedy: what to do if it is not as it was written, a sentence without its full stop. most: how many bytes
    are read, -1 for all. Raises FolderError that names the file and the remedy if it is missing, empty or cannot be read.
    """
    try:
        with path.open("rb") as file:
            body = file.read(most)
    except FileNotFoundError:
        raise damaged(path, "is missing", remedy) from None
    except OSError as fault:
        raise damaged(path, f"cannot be read ({fault.strerror or type(fault).__name__})", remedy) from None
    if not body:
        raise damaged(path, "is empty", remedy)
    return body


def damaged(path: Path, what: str, remedy: str = REMEDY) -> FolderError:
    """The error that says `what` is wrong with a file of a run's folder, and the remedy."""
    return FolderError(f"{path} {what}. {remedy}.")


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """What a JSON file says. Raises FolderError as `content_of`, and if it is cut short or no JSON."""
    try:
        return json.loads(content_of(path, remedy))
    except (ValueError, RecursionError):  # a decoding error is a ValueError
        raise damaged(path, "is cut short or was changed: it is no JSON", remedy) from None


def write_document(path: Path, content: Mapping[str, Any]) -> None:
    """Put `content`, of which JSON holds all, at `path` with its stamp. Raises OSError."""
    write_text(path, json.dumps(stamped(content), indent=1) + "\n")


def read_document(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """The content of a document, without its stamp. Raises FolderError as `read_json`, and if it is no document or does not say
    what was written."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise damaged(path, "is no document of a run: it holds no JSON object", remedy)
    if not is_intact(content):
        raise damaged(path, "was changed after it was written: its SHA-256 is not that of its content", remedy)
    return {name: value for name, value in content.items() if name != STAMP}


def stamped(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with its stamp."""
    return {**content, STAMP: _digest(content)}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether a document says what was written, as far as it carries a stamp."""
    return STAMP not in content or content[STAMP] == _digest(content)


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of all but the stamp, in one spelling."""
    told = {name: value for name, value in content.items() if name != STAMP}
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
