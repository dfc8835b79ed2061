"""What the package shows of itself."""

from __future__ import annotations

import subprocess
import sys

import fedprivseg


def test_every_public_name_is_listed_sorted_and_there():
    assert fedprivseg.__all__ == sorted(fedprivseg.__all__)
    assert set(fedprivseg.__all__) <= set(dir(fedprivseg))
    assert all(getattr(fedprivseg, name) is not None for name in fedprivseg.__all__)


def test_names_are_listed_before_they_are_used():
    """`dir` in a fresh interpreter, where nothing was imported on use yet, and loads nothing."""
    code = (
        "import sys, fedprivseg\n"
        "print(sorted(n for n in dir(fedprivseg) if not n.startswith('_')))\n"
        "print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, loaded = done.stdout.splitlines()
    assert names == "['FedprivsegError', 'Result', 'Scenario', 'load_scenario', 'simulate']"
    assert loaded == "False"
