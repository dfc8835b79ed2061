"""Dice by group of patients, read at the simulated sites."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from fedprivseg.core.results import read_result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.study import pipeline
from fedprivseg.study.report.dice_groups import LEAST, dice_by_group


def test_the_mean_of_a_group_is_that_of_its_patients(strict_run, phantom):
    """Against the release's own table: all test subjects of a vendor, whose places at a site are in the order of its
    measures."""
    result, found = read_result(strict_run), dice_by_group(strict_run)
    assert not found.left_out
    with next(phantom.glob("*.csv")).open() as file:
        vendor = {row["Centre"]: row["VendorName"] for row in csv.DictReader(file)}
    expected: dict[str, list[float]] = {}
    for site in result.sites:
        own: dict[str, list[float]] = {}
        for row in result.metrics:
            if row.site == site:
                own.setdefault(row.subject, []).append(row.dice)
        expected.setdefault(vendor[site.removeprefix("centre")], []).extend(map(np.mean, own.values()))
    rows = {row.group: row for row in found.rows if row.attribute == "vendor"}
    assert {name: row.patients for name, row in rows.items()} == {name: len(each) for name, each in expected.items()}
    for name, each in expected.items():
        assert rows[name].dice == (pytest.approx(np.mean(each)) if len(each) >= LEAST else None)
    assert {row.attribute for row in found.rows} >= {"vendor", "disease", "sex"}


def test_a_site_whose_subjects_cannot_be_read_is_named(strict_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict_run, copy)
    for path in RunFolder(copy).site("centre2").path.glob("participants*"):
        path.unlink()
    RunFolder(copy).site("centre2").configuration.write_text("{}")
    found = dice_by_group(copy)
    assert found.left_out == ("centre2",)
    assert found.rows


def test_the_report_shows_it(strict_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(strict_run, copy)
    page = pipeline.report(copy).read_text()
    assert "Mean Dice by group of patients" in page
    assert "too few to be told of" in page
