"""What follows on what after a run: every way to a report goes through the same stages."""

from __future__ import annotations

import pytest

from fedprivseg.core.errors import FolderError, QuorumError
from fedprivseg.study import pipeline

REPORTED = ["assess", "images", "groups", "page"]


@pytest.fixture
def stages(monkeypatch, tmp_path):
    """The stages that were entered, in order; none of them does anything. ``(tmp_path / "result.json")`` is there."""
    entered = []
    for name, stage in {
        "study.run.simulate": "run",
        "study.pipeline.judge_and_write": "assess",
        "study.leakage.attack_run": "attack",
        "study.report.site_images.images_of": "images",
        "study.report.dice_groups.dice_by_group": "groups",
        "study.report.report_page.write_report": "page",
    }.items():
        monkeypatch.setattr(f"fedprivseg.{name}", lambda *_, stage=stage, **__: entered.append(stage))
    monkeypatch.setattr(pipeline, "read_result", lambda folder: None)
    (tmp_path / "result.json").touch()
    return entered


def test_a_run_is_assessed_and_reported(stages, tmp_path):
    pipeline.run(None, tmp_path)
    assert stages == ["run", *REPORTED]


def test_a_run_that_was_reported_is_only_read(stages, tmp_path):
    (tmp_path / "report.html").touch()
    pipeline.run(None, tmp_path)
    assert stages == ["run"]


def test_an_attack_ends_in_the_report(stages, tmp_path):
    pipeline.attack(tmp_path, "small", (), (), None)
    assert stages == ["attack", *REPORTED]


def test_a_run_without_quorum_is_assessed_and_not_reported(stages, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise QuorumError("2 sites left.")

    monkeypatch.setattr("fedprivseg.study.run.simulate", fails)
    with pytest.raises(QuorumError, match=r"2 sites left\. Which rules were kept until then: .*compliance\.json"):
        pipeline.run(None, tmp_path)
    assert stages == ["assess"]


def test_nothing_is_judged_in_a_folder_that_holds_no_finished_run(stages, tmp_path, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "result.json").unlink()
    with pytest.raises(FolderError, match="no finished run"):
        pipeline.report(tmp_path)
    assert list(tmp_path.iterdir()) == []
