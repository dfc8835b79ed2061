"""Archives and backups: whole or not there, before and after a kill; nothing in plaintext; names are no paths."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.crypto import sealed_files
from fedprivseg.crypto.identity import canonical
from fedprivseg.crypto.sealed_files import SealError, SealingKey
from fedprivseg.governance.lifecycle import bundle
from fedprivseg.governance.lifecycle.archive import Manifest, archive, read_manifest, restore, verify_archive
from fedprivseg.governance.lifecycle.backup import Backup, backup, restore_backup, verify_backup
from fedprivseg.governance.lifecycle.bundle import ArchiveError, parts_of
from fedprivseg.governance.policy.levels import DataClass

KEY = SealingKey(bytes(range(32)))  # fixed, for tests only
MADE = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STUDY: dict[str, Any] = {
    "name": "study-7",
    "data_class": DataClass.STRUCTURAL,
    "level": 3,
    "keep_until": date(2036, 3, 1),
    "made": MADE,
    "made_by": "archivist",
}
MARK = b"PATIENT-MARK"
FILES = {"image.nii": MARK * 3, "mask.nii": b"", "table.csv": b"age,sex\n"}


def write(folder: Path, files: Mapping[str, bytes]) -> dict[str, Path]:
    """`files` in `folder`, by name."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return {name: folder / name for name in files}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything under `folder`: content by name, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An archive of FILES."""
    archive(write(tmp_path / "vault", FILES), tmp_path / "study-7.archive", KEY, **STUDY)
    return tmp_path / "study-7.archive"


# ---------------------------------------------------------------------------------------------- archives


def test_what_is_archived_comes_back_and_the_manifest_says_what_it_is(source: Path, tmp_path: Path) -> None:
    manifest = restore(source, tmp_path / "back", KEY, "study-7")
    assert tree(tmp_path / "back") == FILES
    assert manifest == read_manifest(source, KEY, "study-7") == verify_archive(source, KEY, "study-7")
    assert [(member.name, member.size, member.sha256) for member in manifest.members] == [
        (name, len(content), hashlib.sha256(content).hexdigest()) for name, content in FILES.items()
    ]
    assert (manifest.data_class, manifest.level, manifest.keep_until) == (DataClass.STRUCTURAL, 3, date(2036, 3, 1))
    assert (manifest.made, manifest.made_by) == (MADE, "archivist")
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "back" / "image.nii").stat().st_mode) == 0o600
    assert stat.S_IMODE(source.stat().st_mode) == 0o600
    assert tree(tmp_path / "vault") == FILES  # archiving removes nothing


def test_the_format_is_the_one_that_is_described(source: Path) -> None:
    content = KEY.open("fedprivseg archive 1: study-7", source.read_bytes())
    size = int.from_bytes(content[:8], "big")
    assert Manifest.model_validate_json(content[8 : 8 + size]).name == "study-7"
    rest = content[8 + size :]
    for expected in FILES.values():
        engine = zlib.decompressobj()
        assert engine.decompress(rest) == expected
        assert engine.eof
        rest = engine.unused_data
    assert rest == b""


def test_an_archive_is_compressed(tmp_path: Path) -> None:
    """100 000 equal bytes: zlib makes 1000 times less of them; header, manifest and tags are less than 1000 bytes."""
    archive(write(tmp_path / "vault", {"a": bytes(100_000)}), tmp_path / "a.archive", KEY, **STUDY)
    assert (tmp_path / "a.archive").stat().st_size < 1500


@settings(max_examples=40, deadline=None)
@given(
    files=st.dictionaries(
        st.text(
            st.characters(codec="utf-8", exclude_characters="/\\\x7f", min_codepoint=32), min_size=1, max_size=10
        ).filter(lambda name: name not in (".", "..")),
        st.binary(max_size=300) | st.integers(1, 3000).map(bytes),
        min_size=1,
        max_size=5,
    ),
    size=st.integers(1, 64),
)
def test_any_files_come_back(files: dict[str, bytes], size: int) -> None:
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "_PIECE", size)  # many pieces on the way in and out
        patch.setattr(sealed_files, "PIECE_BYTES", size)
        patch.setattr(os, "fsync", lambda descriptor: None)
        folder = Path(made)
        archive(write(folder / "vault", files), folder / "a", KEY, **STUDY)
        restore(folder / "a", folder / "back", KEY, "study-7")
        assert tree(folder / "back") == files


def test_any_changed_missing_or_added_byte_restores_nothing(source: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    changed = tmp_path / "changed.archive"

    def refused(content: bytes) -> None:
        changed.write_bytes(content)
        with pytest.raises((SealError, ArchiveError)):
            verify_archive(changed, KEY, "study-7")

    for place, byte in enumerate(whole):
        refused(whole[:place] + bytes([byte ^ 1]) + whole[place + 1 :])
        refused(whole[:place] + whole[place + 1 :])
        refused(whole[:place] + b"\0" + whole[place:])
    for length in range(0, len(whole), 7):
        refused(whole[:length])
    refused(whole + whole)
    before = {path.name for path in tmp_path.iterdir()}
    for place in range(0, len(whole), 20):
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 0x80]) + whole[place + 1 :])
        with pytest.raises((SealError, ArchiveError)):
            restore(changed, tmp_path / "back", KEY, "study-7")
        assert {path.name for path in tmp_path.iterdir()} == before


def test_a_bad_byte_in_the_last_piece_restores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then the first files are written: they must be gone again."""
    monkeypatch.setattr(sealed_files, "PIECE_BYTES", 64)
    archive(write(tmp_path / "vault", FILES), tmp_path / "a", KEY, **STUDY)
    whole = bytearray((tmp_path / "a").read_bytes())
    whole[-1] ^= 1
    (tmp_path / "a").write_bytes(whole)
    made: list[Path] = []
    mkdir = Path.mkdir

    def recorded(path: Path, *arguments: Any, **words: Any) -> None:
        made.append(path)
        mkdir(path, *arguments, **words)

    monkeypatch.setattr(Path, "mkdir", recorded)
    with pytest.raises(SealError, match="changed or cut"):
        restore(tmp_path / "a", tmp_path / "back", KEY, "study-7")
    assert [path.name for path in made] == [".back.restoring"]
    assert {path.name for path in tmp_path.iterdir()} == {"vault", "a"}


def test_the_wrong_key_and_the_wrong_name_open_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SealError, match="another key"):
        restore(source, tmp_path / "back", SealingKey(os.urandom(32)), "study-7")
    with pytest.raises(SealError, match="another file's"):
        read_manifest(source, KEY, "study-8")
    with pytest.raises(SealError, match="another file's"):
        verify_backup(source, KEY)
    assert not (tmp_path / "back").exists()


def test_archives_that_change_places_are_noticed(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "study-8.archive"
    archive(write(tmp_path / "vault", FILES), other, KEY, **(STUDY | {"name": "study-8"}))
    os.replace(other, source)
    with pytest.raises(SealError, match="another file's"):
        verify_archive(source, KEY, "study-7")


def test_nothing_is_written_over(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        archive(write(tmp_path / "vault", FILES), source, KEY, **STUDY)
    (tmp_path / "back").mkdir()
    with pytest.raises(RequestError, match="exists already"):
        restore(source, tmp_path / "back", KEY, "study-7")
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"level": 6}, "level"),
        ({"level": True}, "level"),
        ({"data_class": "mri"}, "data_class"),
        ({"made": datetime(2026, 3, 1)}, "made"),
        ({"made_by": ""}, "made_by"),
        ({"name": ""}, "name"),
    ],
)
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        archive(write(tmp_path / "vault", FILES), tmp_path / "a", KEY, **(STUDY | change))
    assert not (tmp_path / "a").exists()


def test_no_files_make_no_archive(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="members"):
        archive({}, tmp_path / "a", KEY, **STUDY)


def test_what_is_sealed_is_archived_opened_and_compressed_without_a_copy_on_the_disk(tmp_path: Path) -> None:
    """A sealed file cannot be compressed: 5.7-d wants what is in it."""
    sealed = KEY.seal("codec", MARK * 10_000)
    archive({"codec": lambda: KEY.open_stream("codec", [sealed])}, tmp_path / "a", KEY, **STUDY)
    assert (tmp_path / "a").stat().st_size < len(sealed) / 10
    restore(tmp_path / "a", tmp_path / "back", KEY, "study-7")
    assert tree(tmp_path / "back") == {"codec": MARK * 10_000}
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(SealError):
        archive({"codec": lambda: KEY.open_stream("codec", [changed])}, tmp_path / "b", KEY, **STUDY)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "back"}


# ---------------------------------------------------------------------------------------------- names are no paths

ELSEWHERE = ["../x", "/x", "a/../../x", "", ".", "..", "a//b", "a/", "a\\b", "a\0b", "a\nb", "x" * 256, "\udcff"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_goes_neither_in_nor_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(MARK)
    with pytest.raises(RequestError):
        archive({name: tmp_path / "file"}, tmp_path / "a", KEY, **STUDY)
    # Whoever has the key can seal any manifest; one that was made with such a name is refused.
    member = {"name": name, "size": len(MARK), "sha256": hashlib.sha256(MARK).hexdigest()}
    forge(tmp_path / "a", [member], [MARK])
    with pytest.raises(ArchiveError, match="manifest"):
        restore(tmp_path / "a", tmp_path / "back", KEY, "study-7")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "a"}


def forge(target: Path, members: list[dict[str, Any]], contents: list[bytes], more: bytes = b"") -> None:
    """An archive with any manifest, as the holder of the key could make one."""
    record = STUDY | {"members": members, "made": MADE.isoformat(), "keep_until": "2036-03-01"}
    head = canonical(record)
    body = b"".join(zlib.compress(content) for content in contents)
    write_durably(
        target, [KEY.seal("fedprivseg archive 1: study-7", len(head).to_bytes(8, "big") + head + body + more)]
    )


def test_a_file_that_is_not_what_the_manifest_says_restores_nothing(tmp_path: Path) -> None:
    good = {"name": "a", "size": 4, "sha256": hashlib.sha256(b"good").hexdigest()}
    for members, contents, more, said in (
        ([good], [b"bad!"], b"", "not what its manifest says"),
        ([good | {"size": 3}], [b"good"], b"", "not what its manifest says"),
        ([good | {"size": 5}], [b"good"], b"", "not what its manifest says"),
        ([good], [bytes(10_000_000)], b"", "not what its manifest says"),
        ([good], [b"good"], b"x", "holds more"),
        ([good, good | {"name": "b"}], [b"good"], b"", "holds less"),
    ):
        forge(tmp_path / "a", members, contents, more)
        with pytest.raises(ArchiveError, match=said):
            restore(tmp_path / "a", tmp_path / "back", KEY, "study-7")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    forge(tmp_path / "a", [good, good], [b"good", b"good"])
    with pytest.raises(RequestError, match="File exists"):
        restore(tmp_path / "a", tmp_path / "back", KEY, "study-7")
    forge(tmp_path / "a", [good], [b"good"])
    assert restore(tmp_path / "a", tmp_path / "back", KEY, "study-7").members[0].name == "a"


def test_more_than_the_manifest_says_is_noticed_in_whatever_piece_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_files, "PIECE_BYTES", 1)
    good = {"name": "a", "size": 4, "sha256": hashlib.sha256(b"good").hexdigest()}
    for more in (b"x", zlib.compress(b"x")):
        forge(tmp_path / "a", [good], [b"good"], more)
        with pytest.raises(ArchiveError, match="holds more"):
            verify_archive(tmp_path / "a", KEY, "study-7")


def test_a_file_that_unpacks_to_more_than_it_says_does_not_fill_the_disk() -> None:
    """10 MB of zeros behind a manifest that says 300 000 bytes: not a byte more is handed out."""
    member = bundle.Member(name="a", size=300_000, sha256="0" * 64)
    reader = bundle._Reader(iter([zlib.compress(bytes(10_000_000))]))
    pieces: deque[bytes] = deque()
    with pytest.raises(ArchiveError):
        pieces.extend(reader.inflate(member))  # keeps what came before the error
    assert 0 < sum(map(len, pieces)) <= 300_000


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_a_name_that_is_taken_stays_in_its_folder(name: str) -> None:
    try:
        parts = parts_of(name)
    except ValueError:
        return
    assert Path(os.path.normpath(Path("/home/back", *parts))).is_relative_to("/home/back")
    assert "/".join(parts) == name
    assert len(Path("/home/back", *parts).parts) == 3 + len(parts)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "absent"])
def test_what_is_no_file_is_not_archived_and_not_named(tmp_path: Path, kind: str) -> None:
    odd = tmp_path / "patient-7"
    (tmp_path / "file").write_bytes(MARK)
    if kind == "link":
        odd.symlink_to(tmp_path / "file")
    elif kind == "folder":
        odd.mkdir()
    elif kind == "pipe":
        os.mkfifo(odd)
    with pytest.raises(RequestError, match="file 2 of 2") as caught:
        archive({"a": tmp_path / "file", "b": odd}, tmp_path / "a", KEY, **STUDY)
    assert "patient-7" not in str(caught.value)
    assert not (tmp_path / "a").exists()


# ---------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_archive_that_fails_is_not_there_and_left_no_plaintext(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    files = write(tmp_path / "vault", FILES)
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RequestError, match="No space left") as caught:
            archive(files, out / "a", KEY, **STUDY)
    assert str(tmp_path) not in str(caught.value)
    assert list(out.iterdir()) == []
    archive(files, out / "a", KEY, **STUDY)
    assert verify_archive(out / "a", KEY, "study-7").name == "study-7"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_no_plaintext_is_on_the_disk_after_an_archive_or_a_kill(tmp_path: Path, call: str) -> None:
    """The process dies at once, without any cleaning up: its draft stays, and is sealed."""
    write(tmp_path / "vault", {"a": MARK * 50_000})
    program = (
        "import os, sys; from pathlib import Path; from datetime import *\n"
        "from fedprivseg.governance.lifecycle.archive import archive; from fedprivseg.crypto.sealed_files import SealingKey\n"
        "from fedprivseg.governance.policy.levels import DataClass\n"
        f"os.{call} = lambda *names: os._exit(9)\n"
        "home = Path(sys.argv[1])\n"
        "archive({'a': home / 'vault' / 'a'}, home / 'out' / 'a', SealingKey(bytes(32)), name='s',\n"
        "        data_class=DataClass.STRUCTURAL, level=3, keep_until=date(2030, 1, 1), made=datetime.now(UTC), made_by='x')"
    )
    (tmp_path / "out").mkdir()
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    left = list((tmp_path / "out").iterdir())
    assert [path.name.startswith(".a.") and path.name.endswith(".draft") for path in left] == [True]
    archive({"a": tmp_path / "vault" / "a"}, tmp_path / "out" / "a", KEY, **STUDY)
    for path in (tmp_path / "out").iterdir():
        assert path.stat().st_size > 300
        assert MARK not in path.read_bytes()
        assert zlib.compress(MARK * 50_000, bundle.ZLIB_LEVEL)[:12] not in path.read_bytes()


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_restore_that_fails_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: BaseException
) -> None:
    def fail(*arguments: object) -> None:
        raise fault

    before = tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises((RequestError, KeyboardInterrupt)):
            restore(source, tmp_path / "back", KEY, "study-7")
    assert tree(tmp_path) == before
    restore(source, tmp_path / "back", KEY, "study-7")
    assert tree(tmp_path / "back") == FILES


def test_what_a_killed_restore_left_is_said_and_not_taken_for_a_result(source: Path, tmp_path: Path) -> None:
    (tmp_path / ".back.restoring").mkdir()
    (tmp_path / ".back.restoring" / "image.nii").write_bytes(MARK)
    with pytest.raises(RequestError, match=r"\.back\.restoring exists.*destroy that folder first"):
        restore(source, tmp_path / "back", KEY, "study-7")
    assert not (tmp_path / "back").exists()
    assert tree(tmp_path / ".back.restoring") == {"image.nii": MARK}


def test_a_file_that_changes_meanwhile_makes_no_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path / "vault", {"patient-7": b"before"})
    examined = bundle.examined

    def then_changed(files: Mapping[str, Path]) -> Any:
        members = examined(files)
        files["patient-7"].write_bytes(b"behind")
        return members

    monkeypatch.setattr(bundle, "examined", then_changed)
    with pytest.raises(ArchiveError, match="file 1 of 1 changed") as caught:
        archive(files, tmp_path / "a", KEY, **STUDY)
    assert "patient-7" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"vault"}


# ---------------------------------------------------------------------------------------------- backups

TREE = {"vault/encoder.sealed": b"e" * 99, "vault/deep/er/mask": b"m", "ledger.jsonl": b"{}\n", "keys.ring": b"ring"}


def saved(tmp_path: Path, **words: Any) -> Path:
    write(tmp_path / "site", TREE)
    (tmp_path / "site" / "empty").mkdir(exist_ok=True)
    backup(tmp_path / "site", tmp_path / "b", KEY, made=MADE, name="centre1", made_by="night job", **words)
    return tmp_path / "b"


def test_a_backup_brings_the_tree_back(tmp_path: Path) -> None:
    source = saved(tmp_path)
    said = restore_backup(source, tmp_path / "back", KEY)
    assert tree(tmp_path / "back") == tree(tmp_path / "site")
    assert said == verify_backup(source, KEY)
    assert (said.made, said.made_by) == (MADE, "night job")
    assert said.folders == ("empty", "vault", "vault/deep", "vault/deep/er")
    assert stat.S_IMODE((tmp_path / "back" / "vault").stat().st_mode) == 0o700


def test_what_is_left_out_is_not_in_the_backup(tmp_path: Path) -> None:
    source = saved(tmp_path, leave_out=("keys.ring", "vault/deep"))
    restore_backup(source, tmp_path / "back", KEY)
    assert set(tree(tmp_path / "back")) == {"empty", "vault", "vault/encoder.sealed", "ledger.jsonl"}


def test_a_name_to_leave_out_that_does_not_exist_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="1 of the names to leave out do not exist"):
        saved(tmp_path, leave_out=("keys.ring", "key.ring"))
    assert not (tmp_path / "b").exists()


def test_any_changed_byte_of_a_backup_is_noticed(tmp_path: Path) -> None:
    source = saved(tmp_path)
    whole = source.read_bytes()
    for place, byte in enumerate(whole):
        source.write_bytes(whole[:place] + bytes([byte ^ 0x10]) + whole[place + 1 :])
        with pytest.raises((SealError, ArchiveError)):
            verify_backup(source, KEY)
    with pytest.raises((SealError, ArchiveError)):
        restore_backup(source, tmp_path / "back", KEY)
    assert {path.name for path in tmp_path.iterdir()} == {"site", "b"}


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "site", TREE)
    for make in (lambda path: path.symlink_to("/etc/hostname"), lambda path: path.symlink_to(tmp_path), os.mkfifo):
        make(tmp_path / "site" / "odd")
        with pytest.raises(RequestError, match="a link or a device"):
            backup(tmp_path / "site", tmp_path / "b", KEY, made=MADE, name="centre1", made_by="night job")
        (tmp_path / "site" / "odd").unlink()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("folder", "target", "said"),
    [
        ("site", "site/vault/b", "would lie in the folder"),
        ("absent", "b", "is no folder"),
        ("site/ledger.jsonl", "b", "is no folder"),
        ("site/empty", "b", "holds no files"),
    ],
)
def test_a_backup_of_nothing_or_of_itself_is_refused(tmp_path: Path, folder: str, target: str, said: str) -> None:
    write(tmp_path / "site", TREE)
    (tmp_path / "site" / "empty").mkdir()
    with pytest.raises(RequestError, match=said):
        backup(tmp_path / folder, tmp_path / target, KEY, made=MADE, name="centre1", made_by="night job")
    assert not (tmp_path / target).exists()


def test_a_backup_with_a_folder_that_leads_elsewhere_is_refused() -> None:
    member = {"name": "a", "size": 0, "sha256": "0" * 64}
    with pytest.raises(ValueError, match="leads elsewhere"):
        Backup.model_validate(
            {"name": "centre1", "made": MADE, "made_by": "x", "folders": ("../..",), "members": (member,)}
        )


# ---------------------------------------------------------------------------------------------- terms


def manifest(name: str, until: date) -> Manifest:
    member = {"name": "a", "size": 0, "sha256": "0" * 64}
    return Manifest.model_validate(STUDY | {"name": name, "keep_until": until, "members": (member,)})


def test_what_the_ledger_is_told_holds_no_names_of_files() -> None:
    facts = manifest("study-7", date(2030, 1, 2)).facts
    assert (facts["archive"], facts["class"], facts["level"], facts["files"]) == (
        "study-7",
        "clinical image, structural",
        3,
        1,
    )
    assert all(isinstance(fact, str | int) for fact in facts.values())
