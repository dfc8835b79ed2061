"""Archives: data that is no longer in daily use, compressed and sealed, with its class, its level and the end of its term.

T/SCGS 313008-2024 clauses 5.7-a to 5.7-d. The format is that of a bundle (`bundle`).

An archive belongs to one class and one level, so that its term and its destruction are one decision (5.7-a, 5.8-c). To be able
to destroy one subject's copies, archive each subject under a key of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import final

from pydantic import Field

from fedprivseg.core.config import validated
from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import canonical
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.ledger.format import Fact
from fedprivseg.governance.lifecycle.bundle import (
    Record,
    Source,
    disk,
    examined,
    opened,
    requested_parts,
    restored,
    verified,
    write,
)
from fedprivseg.governance.policy.levels import DataClass


@final
class Manifest(Record):
    """What an archive says of itself. keep_until: the day on which its term ends. made_by: a role or a pseudonym."""

    name: str = Field(min_length=1)
    data_class: DataClass
    level: int = Field(ge=1, le=5, strict=True)
    keep_until: date

    @property
    def tree(self) -> tuple[str, ...]:
        """No folders: an archive is flat."""
        return ()

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What a ledger line says of the archive: no names of files."""
        return {
            "archive": self.name,
            "class": self.data_class.value,
            "clause": "5.7-d",
            "digest": hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest(),
            "files": len(self.members),
            "keep_until": self.keep_until.isoformat(),
            "level": self.level,
        }


def archive(
    files: Mapping[str, Source],
    target: Path,
    key: SealingKey,
    *,
    name: str,
    data_class: DataClass,
    level: int,
    keep_until: date,
    made: datetime,
    made_by: str,
) -> Manifest:
    """Write the archive `name` to the new file `target`, sealed under `key`, and return its manifest.

    files: by the name that each has in the archive, without ``/``. keep_until: the day on which the retention term ends
    (`retention`). The archive opens only as `name`, so one cannot be put in another's place. The files stay where they are:
    remove them with `destruction`. Each is read twice. Raises RequestError if a name or a file will not do or the disk
    cannot be used, ArchiveError if a file changes meanwhile; then there is no archive.
    """
    if any(len(requested_parts(label)) != 1 for label in files):
        raise RequestError("the names of files in an archive hold no '/'. Use a backup for a tree of folders.")
    manifest = validated(
        Manifest,
        {
            "name": name,
            "data_class": data_class,
            "level": level,
            "keep_until": keep_until,
            "made": made,
            "made_by": made_by,
            "members": examined(files),
        },
        "the archive",
    )
    write(target, key, _sealed_name(name), manifest, list(files.values()))
    return manifest


def read_manifest(source: Path, key: SealingKey, name: str) -> Manifest:
    """The manifest of the archive `name` in the file `source`; the rest is not looked at. Raises SealError, ArchiveError."""
    with disk("the archive", "read"):
        return opened(source, key, _sealed_name(name), Manifest)[0]


def verify_archive(source: Path, key: SealingKey, name: str) -> Manifest:
    """The manifest of the archive `name`, after every file in it was checked against it. Raises SealError, ArchiveError."""
    with disk("the archive", "read"):
        return verified(source, key, _sealed_name(name), Manifest)


def restore(source: Path, target: Path, key: SealingKey, name: str) -> Manifest:
    """The files of the archive `name` in the new folder `target` (mode 0700, files 0600): all of them or none.

    Until the last byte is checked they lie in ``.<target>.restoring`` beside it, which is removed on any exception. If the
    process is killed it stays, and is not restored over. Raises SealError, ArchiveError, RequestError.
    """
    return restored(source, target, key, _sealed_name(name), Manifest)


def due(manifests: Iterable[Manifest], today: date) -> tuple[Manifest, ...]:
    """The archives whose retention term has ended on `today`, the longest overdue first."""
    ended = (manifest for manifest in manifests if manifest.keep_until <= today)
    return tuple(sorted(ended, key=lambda manifest: (manifest.keep_until, manifest.name)))


def _sealed_name(name: str) -> str:
    return f"fedprivseg archive 1: {name}"
