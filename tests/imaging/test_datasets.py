"""Which data set a scenario names, and where its images are."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import pytest

from fedprivseg.core.cache import cache_folder
from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.errors import DataError, ScenarioError
from fedprivseg.core.task import default_task
from fedprivseg.imaging import phantom as phantom_room
from fedprivseg.imaging.dataset import FAULTS
from fedprivseg.imaging.datasets import DATASETS, dataset_of
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.nnunet import NnUNet
from fedprivseg.imaging.sources import PHANTOMS, drawn_release, format_and_task, release_place

SITES = [SiteConfig(name=f"centre{number}", centre=number) for number in (3, 1)]


@pytest.mark.parametrize("kind", DATASETS, ids=lambda kind: kind.name)
def test_every_data_set_says_what_its_faults_mean(kind) -> None:
    assert FAULTS.items() <= kind.faults.items()
    assert kind.limits.pixel[0] < kind.limits.pixel[1]
    assert len({each.name for each in DATASETS}) == len(DATASETS)


def test_a_folder_is_known_by_its_files_and_else_read_as_before(phantom: Path, tmp_path: Path) -> None:
    assert isinstance(dataset_of(DataConfig(), phantom), MnMs)
    assert isinstance(dataset_of(DataConfig(), tmp_path), MnMs)
    (tmp_path / "dataset.json").write_text("{}")
    assert isinstance(dataset_of(DataConfig(), tmp_path), NnUNet)
    assert isinstance(dataset_of(DataConfig(format="mnms"), tmp_path), MnMs)
    assert dataset_of(DataConfig(channel=1), tmp_path) == NnUNet("1")
    with pytest.raises(ScenarioError, match="unknown dataset 'bids'; the datasets are: mnms, nnunet"):
        dataset_of(DataConfig(format="bids"), tmp_path)


def test_a_phantom_has_its_task_before_it_is_drawn() -> None:
    assert format_and_task(DataConfig()) == ("mnms", default_task())
    form, task = format_and_task(DataConfig(source="phantom-brain"))
    assert (form, task.names) == ("nnunet", ("lesion",))
    assert {phantom.dataset for phantom in PHANTOMS} == set(DATASETS)


def test_a_phantom_lies_in_the_cache_under_what_drew_it() -> None:
    place = release_place(DataConfig(subjects=4, seed=7), SITES)
    code = b"".join(
        path.name.encode() + path.read_bytes() for path in sorted(Path(phantom_room.__path__[0]).glob("*.py"))
    )
    drawn = hashlib.sha256(code).hexdigest()[:8]
    assert place == cache_folder() / f"phantom-{version('fedprivseg')}-{drawn}-4-7-1-3"
    with pytest.raises(DataError, match="the phantom has no centre 9; it has 1, 2, 3, 4, 5"):
        release_place(DataConfig(), [SiteConfig(name="a", centre=9)])
    with pytest.raises(DataError, match="the phantom has no centre north"):
        release_place(DataConfig(), [SiteConfig(name="north")])


def test_a_phantom_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPRIVSEG_CACHE", str(tmp_path))
    data = DataConfig(source="phantom-brain", subjects=2)
    first = drawn_release(data, [SiteConfig(name="north")])
    written = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert drawn_release(data, [SiteConfig(name="north")]) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == written
    assert {one.centre for one in NnUNet().read(first).subjects} == {"north"}
