"""Files are written whole or not at all, and overwritten from their first byte to their last."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fedprivseg.core.files import overwrite, write_durably

CONTENT = b"the encoder of a centre"


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "state"
    write_durably(path, [b"o", b"ld"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_durably(path, [b"new"])
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("state", b"old")]
    write_durably(path, [b"new"])
    assert path.read_bytes() == b"new"


def test_overwriting_leaves_nothing_of_the_content_and_keeps_the_length(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT * 100_000)  # 2.3 MB: more than one write
    with path.open("r+b") as file:
        overwrite(file.fileno())
    assert path.stat().st_size == len(CONTENT) * 100_000
    assert CONTENT[:8] not in path.read_bytes()


def test_overwriting_begins_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    with path.open("r+b") as file:
        file.seek(len(CONTENT))
        overwrite(file.fileno())
    assert len(path.read_bytes()) == len(CONTENT)
    assert CONTENT[:8] not in path.read_bytes()
