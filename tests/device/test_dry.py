"""What is measured on a GPU runs on a CPU too, on tiny shapes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from conftest import ROOT

PARTS = ("peak", "training", "agreement", "packing", "inference")
"""All but averaging, which starts two engines."""


def test_every_part_fills_its_table():
    words = [word for part in PARTS for word in ("--only", part)]
    command = [sys.executable, str(ROOT / "tests" / "device" / "measure.py"), "--dry", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Left out" not in done.stdout
    tables = done.stdout.split("## ")[1:]
    assert len(tables) == len(PARTS)
    for table in tables:
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len(rows) > 2, table
        assert not any(cell.strip() == "-" for row in rows for cell in row.split("|")), table


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    command = [sys.executable, str(ROOT / "tests" / "device" / "measure.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--dry" in done.stderr


def test_a_part_that_is_none_is_refused():
    command = [sys.executable, str(ROOT / "tests" / "device" / "measure.py"), "--dry", "--only", "speed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "parts are: peak, training" in done.stderr
