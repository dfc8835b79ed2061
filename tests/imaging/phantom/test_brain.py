"""The phantom of another organ: the same arguments give the same bytes, and what is announced is what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.imaging.nnunet import NnUNet
from fedprivseg.imaging.phantom.brain import TASK, announced_brains, draw_head, write_brains


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_arguments_give_the_same_bytes_whichever_centres_are_written(tmp_path: Path) -> None:
    both = _content(write_brains(tmp_path / "both", 2, 3, centres=(1, "north")))
    alone = _content(write_brains(tmp_path / "alone", 2, 3, centres=("north",)))
    again = _content(write_brains(tmp_path / "again", 2, 3, centres=("north",)))
    assert alone == again
    images = {name: body for name, body in alone.items() if name.endswith(".nii.gz")}
    assert images.items() <= both.items()


def test_what_is_announced_is_what_is_there(tmp_path: Path) -> None:
    dataset = NnUNet()
    release = dataset.check(write_brains(tmp_path / "heads", 4, 0, centres=(1, 2)))
    assert release.faults == ()
    said = announced_brains(4, 0, (1, 2))
    assert [(one.code, one.centre, one.split, one.attributes) for one in said] == [
        (one.code, one.centre, one.split, one.attributes) for one in release.subjects
    ]
    assert dataset.task(release.folder).names == TASK.names


def test_a_lesion_is_bright_in_flair_and_dark_in_t1() -> None:
    for index in range(4):
        (flair, t1), mask, affine = draw_head(0, 1, index)
        assert 40 < mask.sum() < 0.1 * mask.size
        assert abs(np.linalg.det(affine)) > 0
        brain = (flair > 0.7 * 400) & (mask == 0)
        assert flair[mask == 1].mean() > 1.2 * flair[brain].mean()
        assert t1[mask == 1].mean() < t1[brain].mean()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="ask for 2 or more"):
        write_brains(tmp_path / "few", 1, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(FolderError, match="already holds something"):
        write_brains(tmp_path / "full", 2, 0)
