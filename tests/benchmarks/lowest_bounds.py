"""Whether the lowest version that `pyproject.toml` allows of every dependency runs, on each Python that it names.

    python tests/benchmarks/lowest_bounds.py [--python 3.11 --python 3.12 --python 3.13] [--keep] [--check NAME]

For each Python, uv (``pip install uv packaging``) resolves the package with all its extras to the lowest versions of what is
named directly, among those that have a wheel for that Python. A bound of which no wheel is to be had is wrong, and so is one
that another dependency lifts: both stand in the table. The package is built with the lowest version of what builds it, and
installed with what was resolved into a scratch environment, which then runs the quickstart cut small, on the engine ``inline``
and on ``ray``, imports what only extras need, runs some tests, and is deleted. torch comes from PyPI with CUDA, some
gigabytes that uv keeps in its cache (``UV_CACHE_DIR``). Prints Markdown; exit status 1 if a bound does not hold.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
EXTRAS = ("dicom", "he", "test")
TESTS = tuple(
    str(ROOT / "tests" / name)
    for name in (
        "test_records.py",
        "attacks/test_judge.py",
        "nets/test_private_training.py",
    )
)
"""Seconds each, of what only the extra ``test`` needs and of others' numbers; warnings of old libraries are not ours."""

SETTINGS = (
    "data.subjects=3",
    "grid.height=32",
    "grid.width=32",
    "grid.spacing=6.0",
    "resources.cpus=1",
    "resources.sites_at_once=1",
    "method.parameters.image_steps=3",
    "method.parameters.mask_steps=3",
    "method.parameters.mapping_steps=3",
    "method.parameters.views=1",
)
"""The quickstart, cut small: everything runs, nothing is learned."""

CHECKS = {
    "imports": [
        "-c",
        "import cedarpy, dcm2niix, dicomanonymizer, dp_accounting, monai, opacus, prov, pydicom, scipy, skimage, tenseal;"
        "import fedprivseg.study.pipeline",
    ],
    "tests": [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=default",
        *(str(ROOT / each) for each in TESTS),
    ],
    "ruff": ["-m", "ruff", "check", "--no-cache", str(ROOT)],
    "inline": [],
    "ray": [],
}
LIMIT_S = 1800
TRIALS, SLOW = 5, "Ray did not begin"
"""Ray gives itself 30 s to begin, which a busy machine does not always have: that says nothing of a bound."""


def main() -> int:
    """The table; 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", help="a version, or the path of an interpreter; may be repeated")
    parser.add_argument("--keep", action="store_true", help="leave the environments where they are")
    parser.add_argument("--check", action="append", choices=CHECKS, help="try this alone; may be repeated")
    options = parser.parse_args()
    pythons = options.python or ["3.11", "3.12", "3.13"]
    checks = options.check or list(CHECKS)
    found: dict[str, dict[str, str]] = {}
    outcomes: dict[str, dict[str, str]] = {}
    for python in pythons:
        folder = Path(tempfile.mkdtemp(prefix="lowest-bounds-"))
        try:
            name, found_here = _resolved(python, folder)
            found[name], outcomes[name] = found_here, _tried(python, folder, checks)
        finally:
            if not options.keep:
                shutil.rmtree(folder)
    lines, sound = _table(found)
    print("\n".join([*lines, "", *_outcomes(outcomes, checks)]))
    return 0 if sound and all(each == "ok" for row in outcomes.values() for each in row.values()) else 1


def _resolved(python: str, folder: Path) -> tuple[str, dict[str, str]]:
    """The version of `python`, and the lowest versions in canonical names; also left as ``lock.txt``."""
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    lock = folder / "lock.txt"
    _uv("pip", "compile", str(ROOT / "pyproject.toml"), *extras, "--resolution", "lowest-direct", "--only-binary", ":all:",
        "--no-annotate", "--no-header", "--quiet", "--python", python, "-o", str(lock))  # fmt: skip
    _uv("venv", "--quiet", "--python", python, str(folder / "env"))
    version = subprocess.run(
        [_interpreter(folder), "-c", "import platform; print(platform.python_version())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    pairs = (line.split("==") for line in lock.read_text().splitlines() if "==" in line)
    versions = {_canonical(name): number.split(";")[0].strip() for name, number in pairs}
    return version, versions | dict(_lowest(Requirement(each)).split("==") for each in _builders())


def _tried(python: str, folder: Path, checks: list[str]) -> dict[str, str]:
    """What came of each check: ``ok``, or the last line that it wrote."""
    env = _interpreter(folder)
    _uv("pip", "install", "--quiet", "--python", env, "--only-binary", ":all:", "-r", str(folder / "lock.txt"))
    (folder / "build.txt").write_text("\n".join(_lowest(Requirement(each)) for each in _builders()))
    built = [_uv_path(), "pip", "install", "--quiet", "--python", env, "--no-deps",
             "--build-constraints", str(folder / "build.txt"), str(ROOT)]  # fmt: skip
    outcomes = {"build": _outcome(python, "build", built, folder)}
    for name in checks:
        words = CHECKS[name] or [
            "-m", "fedprivseg.cli", "run", str(ROOT / "simulations" / "quickstart.toml"), "--engine", name,
            "-o", str(folder / f"run-{name}"), *(word for setting in SETTINGS for word in ("--set", setting)),
        ]  # fmt: skip
        outcomes[name] = _outcome(python, name, [env, *words], folder) if outcomes["build"] == "ok" else "not built"
    return outcomes


def _outcome(python: str, name: str, words: list[str], folder: Path) -> str:
    for _ in range(TRIALS):
        told = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=LIMIT_S, cwd=folder,
            env={**os.environ, "FEDPRIVSEG_CACHE": str(folder / "cache"), "PYTHONPATH": ""},
        )  # fmt: skip
        if SLOW not in told.stderr:
            break
    wrote = (told.stderr + told.stdout).strip().splitlines()
    outcome = "ok" if told.returncode == 0 else f"status {told.returncode}: {wrote[-1] if wrote else ''}"
    print(f"{python} {name}: {outcome}", file=sys.stderr)
    if told.returncode:
        print("\n".join(wrote[-100:]), file=sys.stderr)
    return outcome


def _table(found: dict[str, dict[str, str]]) -> tuple[list[str], bool]:
    """A line a dependency: its lowest bound and what was installed on each Python; whether each bound is what was."""
    lines = [f"| dependency | {' | '.join(found)} |", f"| --- |{' --- |' * len(found)}"]
    sound = True
    project = _project("project")
    written = [
        *_builders(),
        *project["dependencies"],
        *(each for extra in EXTRAS for each in project["optional-dependencies"][extra]),
    ]
    asked = [Requirement(each) for each in written]
    for name in dict.fromkeys(_canonical(each.name) for each in asked if each.name != project["name"]):
        cells = []
        for python, versions in found.items():
            here = [
                each
                for each in asked
                if _canonical(each.name) == name
                and (each.marker is None or each.marker.evaluate({"python_version": ".".join(python.split(".")[:2])}))
            ]
            (bound,) = (_lowest(each).partition("==")[2] for each in here)
            holds = Version(bound) == Version(versions[name])
            sound &= holds
            cells.append(versions[name] if holds else f"**{versions[name]}**, not {bound}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines, sound


def _outcomes(outcomes: dict[str, dict[str, str]], checks: list[str]) -> list[str]:
    lines = [f"| check | {' | '.join(outcomes)} |", f"| --- |{' --- |' * len(outcomes)}"]
    return [
        *lines,
        *(f"| {name} | {' | '.join(row[name] for row in outcomes.values())} |" for name in ("build", *checks)),
    ]


def _project(table: str) -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[table])


def _lowest(asked: Requirement) -> str:
    """``name==version`` of the lowest bound."""
    (bound,) = (part.version for part in asked.specifier if part.operator == ">=")
    return f"{asked.name}=={bound}"


def _uv(*words: str) -> None:
    subprocess.run([_uv_path(), *words], check=True)


def _uv_path() -> str:
    """uv stands beside this Python or on the path."""
    own = Path(sys.executable).with_name("uv")
    return str(own) if own.exists() else "uv"


def _builders() -> list[str]:
    return list(_project("build-system")["requires"])


def _interpreter(folder: Path) -> str:
    return str(folder / "env" / "bin" / "python")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.split("[")[0]).lower()


if __name__ == "__main__":
    sys.exit(main())
