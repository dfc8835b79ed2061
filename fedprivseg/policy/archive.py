"""Archives and backups: compressed, sealed, with a manifest, in one file each.

T/SCGS 313008-2024 clauses 5.7-a to 5.7-d (archive), 5.4.2-c (backup and recovery, verified).

What is sealed (`sealing`) is the length of the manifest (8 bytes, big-endian), the manifest as canonical JSON, and each file as
a zlib stream (RFC 1950), one after the other. Nothing lies in plaintext on the disk on the way. The whole is written in one
step: the file is there and whole, or it is not there. A killed writer leaves a draft beside it, which is sealed too.

What restores is checked against the manifest and appears in one step as a new folder. Names come from a manifest and are
never trusted as paths: what could lead out of the folder is refused before anything is written.

An archive belongs to one class and one level, so that its term and its destruction are one decision (5.7-a, 5.8-c). To be able
to destroy one subject's copies, archive each subject under a key of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar, final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedprivseg.config import validated
from fedprivseg.errors import FedprivsegError, RequestError
from fedprivseg.policy.disk import sync_folder, write_whole
from fedprivseg.policy.keys import canonical
from fedprivseg.policy.ledger import Fact
from fedprivseg.policy.levels import DataClass
from fedprivseg.policy.sealing import SealingKey

ZLIB_LEVEL = 1
"""Measured on cine MRI: level 1 makes it 3.0 times smaller, level 6 3.2 times, and takes four times as long."""

MANIFEST_BYTES = 1 << 28
_PIECE = 1 << 18
_NAME_BYTES = 255
_BACKUP = "fedprivseg backup 1"
_EVIDENCE = "Keep it as evidence and use another copy."


class ArchiveError(FedprivsegError):
    """An archive or a backup that is not what its manifest says, or a file that changed while it was being read."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Frozen):
    """One file. name: its parts are joined by ``/``. size: in bytes. sha256: of its content, in hex."""

    name: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _safe(cls, name: str) -> str:
        parts_of(name)
        return name


class Manifest(_Frozen):
    """What an archive says of itself. keep_until: the day on which its term ends. made_by: a role or a pseudonym."""

    name: str = Field(min_length=1)
    data_class: DataClass
    level: int = Field(ge=1, le=5, strict=True)
    keep_until: date
    made: AwareDatetime
    made_by: str = Field(min_length=1)
    members: tuple[Member, ...] = Field(min_length=1)

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


class Backup(_Frozen):
    """What a backup says of itself. folders: all of the tree, parents first. made_by: a role or a pseudonym."""

    made: AwareDatetime
    made_by: str = Field(min_length=1)
    folders: tuple[str, ...]
    members: tuple[Member, ...] = Field(min_length=1)

    @field_validator("folders")
    @classmethod
    def _safe(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            parts_of(name)
        return names


Contents = TypeVar("Contents", Manifest, Backup)


def archive(
    files: Mapping[str, Path],
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
    if any(len(_request_parts(label)) != 1 for label in files):
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
            "members": _examined(files),
        },
        "the archive",
    )
    _write(target, key, _sealed_name(name), manifest, list(files.values()))
    return manifest


def read_manifest(source: Path, key: SealingKey, name: str) -> Manifest:
    """The manifest of the archive `name` in the file `source`; the rest is not looked at. Raises SealError, ArchiveError."""
    with _disk("the archive", "read"):
        return _opened(source, key, _sealed_name(name), Manifest)[0]


def verify_archive(source: Path, key: SealingKey, name: str) -> Manifest:
    """The manifest of the archive `name`, after every file in it was checked against it. Raises SealError, ArchiveError."""
    with _disk("the archive", "read"):
        return _verified(source, key, _sealed_name(name), Manifest)


def restore(source: Path, target: Path, key: SealingKey, name: str) -> Manifest:
    """The files of the archive `name` in the new folder `target` (mode 0700, files 0600): all of them or none.

    Until the last byte is checked they lie in ``.<target>.restoring`` beside it, which is removed on any exception. If the
    process is killed it stays, and is not restored over. Raises SealError, ArchiveError, RequestError.
    """
    return _restored(source, target, key, _sealed_name(name), Manifest)


def due(manifests: Iterable[Manifest], today: date) -> tuple[Manifest, ...]:
    """The archives whose retention term has ended on `today`, the longest overdue first."""
    ended = (manifest for manifest in manifests if manifest.keep_until <= today)
    return tuple(sorted(ended, key=lambda manifest: (manifest.keep_until, manifest.name)))


def backup(
    folder: Path, target: Path, key: SealingKey, *, made: datetime, made_by: str, leave_out: Collection[str] = ()
) -> Backup:
    """Write everything under `folder` to the new file `target`, sealed under `key` (clause 5.4.2-c).

    leave_out: files and folders, relative to `folder`, that stay out. The key ring belongs here: a copy of it in a backup
    would keep keys that are destroyed later. Contents and folders are kept, modes, times and owners are not. Nobody may
    write meanwhile: a file that changes is noticed, a set of files that changes is not. Raises RequestError for links and
    other things that are neither file nor folder, for a name in `leave_out` that does not exist, and if the disk cannot be
    used; ArchiveError if a file changes.
    """
    folders, files = _tree(folder, leave_out)
    if target.resolve().is_relative_to(folder.resolve()):
        raise RequestError("the backup would lie in the folder that it is of. Write it to another medium.")
    content = {"made": made, "made_by": made_by, "folders": tuple(folders), "members": _examined(files)}
    record = validated(Backup, content, "the backup")
    _write(target, key, _BACKUP, record, list(files.values()))
    return record


def verify_backup(source: Path, key: SealingKey) -> Backup:
    """What the backup says of itself, after all of it was read and checked. Compare ``made`` with when the last one was due:
    an older backup in the place of a newer one is whole too. Raises SealError, ArchiveError."""
    with _disk("the backup", "read"):
        return _verified(source, key, _BACKUP, Backup)


def restore_backup(source: Path, target: Path, key: SealingKey) -> Backup:
    """The tree of the backup as the new folder `target`: all of it or nothing, as `restore`."""
    return _restored(source, target, key, _BACKUP, Backup)


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a file's name in an archive, joined by ``/`` in it. Raises ValueError if any could lead elsewhere."""
    parts = tuple(name.split("/"))
    for part in parts:
        # No control characters: a name is shown to people. No backslash: it separates on other systems.
        if part in ("", ".", "..") or "\\" in part or any(ord(char) < 32 or ord(char) == 127 for char in part):
            raise ValueError("a name of a file leads elsewhere or holds characters that names do not have")
        try:
            length = len(part.encode("utf-8"))
        except UnicodeEncodeError:
            raise ValueError("a name of a file is not UTF-8") from None
        if length > _NAME_BYTES:
            raise ValueError(f"a part of a file's name is longer than {_NAME_BYTES} bytes")
    return parts


@final
class _Reader:
    """Reads the parts of an opened archive one after the other."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._rest) < count:
            self._rest += self._next()
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def inflate(self, member: Member) -> Iterator[bytes]:
        """The content of the next file, a piece at a time; never more than `member` says. Raises ArchiveError at its end
        unless it is what `member` says."""
        engine, size, digest = zlib.decompressobj(), 0, hashlib.sha256()
        while not engine.eof:
            plain = engine.decompress(self._rest, _PIECE)
            self._rest = engine.unconsumed_tail
            size += len(plain)
            if size > member.size:
                break
            digest.update(plain)
            if plain:
                yield plain
            elif not engine.eof and not self._rest:
                self._rest = self._next()
        self._rest = engine.unused_data
        if size != member.size or digest.hexdigest() != member.sha256:
            raise ArchiveError(f"a file in it is not what its manifest says. {_EVIDENCE}")

    def end(self) -> None:
        """Raise ArchiveError unless everything was read; SealError if what is left is not whole."""
        if self._rest or any(self._parts):
            raise ArchiveError(f"it holds more than its manifest says. {_EVIDENCE}")

    def _next(self) -> bytes:
        part = next(self._parts, None)
        if part is None:
            raise ArchiveError(f"it holds less than its manifest says. {_EVIDENCE}")
        return part


def _write(target: Path, key: SealingKey, name: str, record: Manifest | Backup, sources: Sequence[Path]) -> None:
    if target.exists() or target.is_symlink():
        raise RequestError(f"{target.name} exists already, and nothing is written over. Choose another name.")
    with _disk(target.name, "written"):
        write_whole(target, key.seal_stream(name, _content(record, sources)))


def _content(record: Manifest | Backup, sources: Sequence[Path]) -> Iterator[bytes]:
    head = canonical(record.model_dump(mode="json"))
    yield len(head).to_bytes(8, "big") + head
    for number, (member, source) in enumerate(zip(record.members, sources, strict=True), start=1):
        engine, digest = zlib.compressobj(ZLIB_LEVEL), hashlib.sha256()
        for piece in _read(source):
            digest.update(piece)
            yield engine.compress(piece)
        yield engine.flush()
        if digest.hexdigest() != member.sha256:
            raise ArchiveError(
                f"file {number} of {len(sources)} changed while it was being read. Stop whoever writes it, then try again."
            )


def _examined(files: Mapping[str, Path]) -> tuple[Member, ...]:
    """Size and digest of each file. Raises RequestError that names the first that will not do by its number."""
    members = []
    for number, (name, source) in enumerate(files.items(), start=1):
        with _disk(f"file {number} of {len(files)}", "read"):
            if not stat.S_ISREG(source.lstat().st_mode):
                raise RequestError(f"file {number} of {len(files)} is no file: links and folders are not followed.")
            digest, size = hashlib.sha256(), 0
            for piece in _read(source):
                digest.update(piece)
                size += len(piece)
        members.append(Member(name=name, size=size, sha256=digest.hexdigest()))
    return tuple(members)


def _tree(folder: Path, leave_out: Collection[str]) -> tuple[list[str], dict[str, Path]]:
    """Folders and files under `folder` by their names relative to it, sorted, without those in `leave_out`."""
    folders, files, unmet = [], {}, set(leave_out)
    with _disk("the folder", "read"):
        if folder.is_symlink() or not folder.is_dir():
            raise RequestError("what is to be backed up is no folder. Give the folder itself, not a link to it.")
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            unmet.discard(name)
            if any(name == left or name.startswith(f"{left}/") for left in leave_out):
                continue
            _request_parts(name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                folders.append(name)
            elif stat.S_ISREG(mode):
                files[name] = path
            else:
                raise RequestError(
                    "the folder holds a link or a device, and a backup holds files and folders. Remove it."
                )
    if unmet:
        raise RequestError(f"{len(unmet)} of the names to leave out do not exist in the folder. Correct them.")
    if not files:
        raise RequestError("the folder holds no files, so there is nothing to back up. Check that it is the right one.")
    return folders, files


def _opened(source: Path, key: SealingKey, name: str, model: type[Contents]) -> tuple[Contents, _Reader]:
    reader = _Reader(key.open_stream(name, _read(source)))
    size = int.from_bytes(reader.take(8), "big")
    if size > MANIFEST_BYTES:
        raise ArchiveError(f"its manifest is longer than {MANIFEST_BYTES} bytes. {_EVIDENCE}")
    try:
        return model.model_validate_json(reader.take(size)), reader
    except ValidationError as fault:
        raise ArchiveError(f"its manifest is none ({fault.error_count()} faults). {_EVIDENCE}") from None


def _verified(source: Path, key: SealingKey, name: str, model: type[Contents]) -> Contents:
    record, reader = _opened(source, key, name, model)
    for member in record.members:
        for _ in reader.inflate(member):
            pass
    reader.end()
    return record


def _restored(source: Path, target: Path, key: SealingKey, name: str, model: type[Contents]) -> Contents:
    if target.exists() or target.is_symlink():
        raise RequestError(f"{target.name} exists already, and nothing is restored over. Choose a new folder.")
    draft = target.with_name(f".{target.name}.restoring")
    with _disk(target.name, "restored"):
        try:
            draft.mkdir(mode=0o700)
        except FileExistsError:
            raise RequestError(
                f"{draft.name} exists: a restore into {target.name} is running, or was killed and left content there. "
                "If none is running, destroy that folder first."
            ) from None
        try:
            record, reader = _opened(source, key, name, model)
            _fill(draft, record, reader)
            os.replace(draft, target)
        except BaseException:
            shutil.rmtree(draft)
            raise
        sync_folder(target.parent)
    return record


def _fill(draft: Path, record: Manifest | Backup, reader: _Reader) -> None:
    """Write everything into the folder `draft`, down to the disk."""
    folders = [draft.joinpath(*parts_of(name)) for name in (record.folders if isinstance(record, Backup) else ())]
    for folder in folders:
        folder.mkdir(mode=0o700)
    for member in record.members:
        # O_EXCL and O_NOFOLLOW: a name that stands twice, in whatever spelling the disk takes for the same, ends it here.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(draft.joinpath(*parts_of(member.name)), flags, 0o600), "wb") as file:
            for piece in reader.inflate(member):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    reader.end()
    for folder in (*reversed(folders), draft):
        sync_folder(folder)


def _read(path: Path) -> Iterator[bytes]:
    # O_NONBLOCK: a pipe that was put in a file's place must not hold us up; on files it has no effect.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _sealed_name(name: str) -> str:
    return f"fedprivseg archive 1: {name}"


def _request_parts(name: str) -> tuple[str, ...]:
    try:
        return parts_of(name)
    except ValueError as fault:
        raise RequestError(f"{fault}. Rename the file first.") from None


@contextmanager
def _disk(what: str, verb: str) -> Iterator[None]:
    """Turn OSError into a RequestError without the path. A failure after the last step leaves the whole of it in place."""
    try:
        yield
    except OSError as fault:
        raise RequestError(
            f"{what} could not be {verb} ({fault.strerror or type(fault).__name__}): nothing of it is there, or all of it. "
            "Check that its folder exists, belongs to this account and has space left."
        ) from None
