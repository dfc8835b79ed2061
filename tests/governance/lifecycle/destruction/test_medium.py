"""The medium of a file: overwriting counts only where it is known to reach the blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedprivseg.governance.lifecycle.destruction.medium import judge_medium, medium_of

MOUNTS = (
    "22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro\n"
    "23 22 8:3 / /journal rw - ext4 /dev/sda3 rw,data=journal\n"
    "24 22 0:40 / /cow rw - btrfs /dev/sdb rw,ssd\n"
    "25 22 0:41 / /net rw - nfs4 server:/export rw\n"
    "26 22 0:42 / /memory rw - tmpfs tmpfs rw\n"
    "27 22 8:4 / /xfs rw - xfs /dev/sda4 rw,reflink\n"
)


@pytest.mark.parametrize(
    ("device", "rotational", "in_place", "said"),
    [
        ("8:2", "1", True, "rotating disk"),
        ("8:2", "0", False, "flash memory"),
        ("8:2", "", False, "could not be told"),
        ("8:3", "1", False, "journal"),
        ("0:40", "1", False, "btrfs"),
        ("0:41", "", False, "nfs4"),
        ("0:42", "", False, "tmpfs"),
        ("8:4", "1", False, "xfs"),
        ("9:9", "1", False, "unknown"),
    ],
)
def test_overwriting_counts_only_where_it_is_known_to_reach_the_blocks(
    device: str, rotational: str, in_place: bool, said: str
) -> None:
    medium = judge_medium(MOUNTS, device, rotational)
    assert said in medium
    assert medium.endswith("overwriting proves nothing") is not in_place


def test_the_medium_of_a_file_on_this_machine_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert medium_of(tmp_path / "file")
    with pytest.raises(OSError, match="No such file"):
        medium_of(tmp_path / "absent")
