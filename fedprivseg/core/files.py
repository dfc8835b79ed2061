"""Files that are there whole or not at all: written as a draft beside their place, then put there in one step.

Three ways: plain (`write_text`, `whole`), durable, so that it outlives a power cut (`write_durably`), and secret, for keys
(`write_secret`). And what must not stay is overwritten and removed.

T/SCGS 313008-2024 clauses 5.4.1, 5.4.2-a (control of storage), 5.8-a (nothing of what was destroyed comes back).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprivseg.core.errors import FolderError, RequestError

DRAFT = ".draft"
"""Ends the name of a file that is not yet whole."""

_APPLE_DOUBLE = b"\x00\x05\x16\x07"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write to; at the end of the block it becomes `path`, on any exception it is removed. A killed process leaves
    it (``.<name>.draft``). Raises OSError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Put `text` at `path` (UTF-8, lines as they are). Raises OSError."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` to `path` (mode 0600) in one step: a reader sees the old file or the new one, also after a power cut.

    The draft beside it (``.<name>.*.draft``) is removed on any exception; a killed process leaves it. Raises OSError.
    """
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=DRAFT, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_small(path: Path) -> bytes | None:
    """What stands in a file that is read for every order, at a fourth of what `Path.read_bytes` takes; None if it cannot be
    read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:  # a folder stands in its place
        return None
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk: without it a power cut may bring back a file that was removed."""
    sync(folder)


def sync(path: Path) -> None:
    """Bring what was written to the file at `path`, or to the folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def overwrite(descriptor: int) -> None:
    """Write random bytes once over all of an open file and bring them to the disk; its length stays. Raises OSError.

    On a magnetic disk that writes in place one pass is enough (NIST SP 800-88 r1, section 2.4). On flash, on copy-on-write
    and on log-structured file systems the old blocks may survive elsewhere: there it proves nothing.
    """
    left = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left > 0:
        left -= os.write(descriptor, os.urandom(min(left, 1 << 20)))
    os.fsync(descriptor)


def write_secret(path: Path, content: bytes) -> None:
    """Write a key file that only the owner can read (mode 0600), whole or not at all, whenever the process is killed.

    A killed process leaves its draft (``.<name>.*.draft``), which nobody reads. Raises RequestError if the file exists (a key
    is never overwritten) or cannot be written.
    """
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", suffix=DRAFT, dir=path.parent)
    except OSError as fault:
        raise RequestError(unusable(f"the key file {path.name}", "created", fault)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link and no renaming: of two processes that create the key of one site at once, one finds that it is there.
        os.link(draft, path)
    except FileExistsError:
        raise RequestError(
            f"the key file {path.name} exists already; a key is never overwritten. Load it, or move it away first."
        ) from None
    except OSError as fault:
        raise RequestError(unusable(f"the key file {path.name}", "written", fault)) from None
    finally:
        Path(draft).unlink(missing_ok=True)


def obstacle(folder: Path) -> str:
    """Why no file can be written in `folder`, empty if one can. Tried with a file that has no name: permissions say nothing of
    a disk that is mounted read-only."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as fault:
        return fault.strerror or type(fault).__name__


def require_writable(run: Path) -> None:
    """Raises FolderError if a command that writes into the run folder `run` cannot; called before it takes its time."""
    if why := obstacle(run):
        raise FolderError(
            f"{run} cannot be written ({why}), and this command writes into it; copy the folder to a disk that can be written"
        )


def deliver(path: Path, content: str | bytes) -> Path:
    """Put what somebody asked for at `path`, in folders that are made if they lack; returns `path`. Text is UTF-8. Raises
    FolderError that says what to do if it cannot be written, or is no file: a device or a pipe would be replaced, not written
    to, and with it that of everybody else on the machine."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FolderError(f"{path} is no file, and would be replaced by one; choose a file with --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as draft:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as fault:
        raise FolderError(
            f"{path} cannot be written ({fault.strerror}); check the folder and the free space, or choose another with --out"
        ) from None
    return path


def is_companion(path: Path) -> bool:
    """Whether `path` is a file that macOS wrote beside another one (``._name``, AppleDouble) on a disk that is not its own. It
    holds no content of the other; whoever lists files passes over it. A file that cannot be read is none: whoever reads it
    says so."""
    if not path.name.startswith("._") or path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
    except OSError:
        return False


def unusable(what: str, verb: str, fault: OSError) -> str:
    """The message for a file that could not be `verb`; the folder is a site's own affair and stays out of it."""
    return (
        f"{what} could not be {verb} ({fault.strerror or type(fault).__name__}). "
        "Check that its folder exists, belongs to this account and has space left."
    )
