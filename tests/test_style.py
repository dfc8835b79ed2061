"""The configured linters find nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("words", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join)
def test_the_linters_are_content(words, tmp_path):
    options = ["--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", *words, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
