"""A round of federated averaging beside plain Flower: both whole programs, each its seconds more for more rounds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "benchmarks" / "peers"
sys.path.insert(0, str(PEERS.parent))


def rows(gpus: float, dry: bool) -> list[list[str]]:
    """Seconds a round of each, from the difference between few and more rounds."""
    try:
        import ray  # noqa: F401
    except ImportError:
        return [["both", "-", "ray is not installed here: carry its wheel (README.md)"]]
    from peers import _prepare  # the slices that both read

    few, more = (1, 2) if dry else (2, 12)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _prepare(folder / "data")
        found = []
        for name, words in (("fedprivseg", _ours(folder, gpus)), ("plain Flower", _plain(folder))):
            try:
                spent = [
                    _seconds([str(each).replace("ROUNDS", str(count)) for each in words], folder)
                    for count in (few, more)
                ]
                found.append([name, f"{(spent[1] - spent[0]) / (more - few):.2f}", f"{spent[0]:.1f} for {few}"])
            except subprocess.CalledProcessError as fault:
                found.append([name, "-", (fault.stderr or b"").decode(errors="replace").strip()[-80:]])
    return found


def _ours(folder: Path, gpus: float) -> list[object]:
    settings = ["grid.height=64", "grid.width=64", "grid.spacing=3.0", "data.subjects=6", "method.name=fedavg"]
    settings += ["method.parameters={rounds = ROUNDS, local_steps = 5, curve_points = ROUNDS, test_views = 1}"]
    settings += [f"resources.gpus={gpus}", "engine=ray"]
    sets = [word for each in settings for word in ("--set", each)]
    scenario = ROOT / "simulations" / "quickstart.toml"
    return [sys.executable, "-m", "fedprivseg.cli", "run", scenario, *sets, "--out", folder / "run-ROUNDS"]


def _plain(folder: Path) -> list[object]:
    return [sys.executable, PEERS / "plain_flower.py", folder / "data", "3", "ROUNDS"]


def _seconds(words: list[str], folder: Path) -> float:
    own = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(folder / "flwr"),
    }
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, timeout=300, env={**os.environ, **own})
    return time.perf_counter() - start
