"""How much CPU the command line spends before it does anything: help, a mistyped parameter, a dry run.

    python tests/benchmarks/start_up.py [--repeats 5]

Prints the least CPU seconds of so many calls, which another load of the machine disturbs least.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

QUICKSTART = str(Path(__file__).parents[2] / "simulations" / "quickstart.toml")
CALLS = {
    "help": ["--help"],
    "a mistyped parameter": ["run", QUICKSTART, "--set", "method.parameters.image_stepz=3"],
    "the list of methods": ["methods"],
    "policy check": ["policy", "check", QUICKSTART],
    "dry run": ["run", QUICKSTART, "--dry-run"],
}


def cpu_seconds(words: list[str]) -> float:
    """CPU seconds of one call."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "fedprivseg.cli", *words], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for name, words in CALLS.items():
        print(f"{name:24} {min(cpu_seconds(words) for _ in range(repeats)):.2f} s")
