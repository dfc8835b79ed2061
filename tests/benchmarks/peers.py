"""fedprivseg beside plain Flower and NVIDIA FLARE: the same net, slices, rounds, steps, batch and evaluation.

    python tests/benchmarks/peers.py [--rounds 10] [--repeats 3] [--out runs/peers]

Three phantom sites, federated averaging, two sites at once with one thread each. Each framework runs as a whole process,
from the command to its end, in turn, `repeats` times; the table has medians, and ratios to fedprivseg's peers. Memory is the
largest sum over a framework's processes of their proportional set size (shared pages counted once), sampled five times a
second in one more run that is not timed, since the sampling itself slows what it watches. FLARE is installed into an
environment of its own under --out. What fedprivseg does beside the others, it does within its time: gate, signatures, ledgers,
checks, measuring in 3-D, predictions as NIfTI, the report.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SITES = 3
LIMIT_S = 400  # a framework that has not ended by then hangs; it is killed, that is told, and it begins anew
TRIALS = 3
SETTINGS = ["grid.height=64", "grid.width=64", "grid.spacing=3.0", "data.subjects=6", "method.name=fedavg"]


def _prepare(folder: Path) -> None:
    """The slices that fedprivseg itself would read, as plain arrays."""
    from fedprivseg.core.config import read_scenario
    from fedprivseg.imaging.mnms.release import MnMs
    from fedprivseg.imaging.splits import cohort
    from fedprivseg.imaging.volumes import gridded_slices
    from fedprivseg.study.run import release_folder

    scenario = read_scenario(ROOT / "simulations" / "quickstart.toml", _own_settings(1))
    subjects = MnMs().read(release_folder(scenario)).subjects
    folder.mkdir(parents=True, exist_ok=True)
    load = partial(MnMs().load, task=scenario.task)
    for place, site in enumerate(scenario.sites):
        sides = cohort(subjects, site, scenario.data)
        train, test = (gridded_slices(load, side, scenario.grid.grid(), None) for side in (sides.train, sides.test))
        arrays = {"images": train.images, "masks": train.masks, "test_images": test.images, "test_masks": test.masks}
        np.savez(folder / f"site{place}.npz", **arrays)


def _own_settings(rounds: int) -> list[str]:
    parameters = f"{{rounds = {rounds}, local_steps = 5, curve_points = {rounds}, test_views = 1}}"
    return [*SETTINGS, "method.variant=default", f"method.parameters={parameters}"]


def _flare(out: Path) -> Path:
    """The python of FLARE's own environment, installed on first use."""
    python = out / "flare-env" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        packages = ["nvflare==2.9.0", "torch>=2.6,<2.14", "safetensors"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return python


def _measured(command: list[str], log: Path, sampled: bool) -> tuple[float, float]:
    """(seconds, MB at most) of `command` and all its children; 0 MB unless `sampled`.

    Raises RuntimeError if it fails, TimeoutError if it outlives LIMIT_S.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    start, most = time.perf_counter(), 0.0
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=env, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            most = max(most, _memory(process.pid)) if sampled else most
            if time.perf_counter() - start > LIMIT_S:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise TimeoutError(f"{' '.join(command)} had not ended after {LIMIT_S} s; see {log}")
            time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; see {log}")
    return time.perf_counter() - start, most


def _in_time(command: list[str], log: Path, sampled: bool) -> tuple[float, float]:
    """`_measured`, again when it hung. Raises TimeoutError if it hangs `TRIALS` times."""
    for _ in range(TRIALS - 1):
        try:
            return _measured(command, log, sampled)
        except TimeoutError as error:
            print(f"hung: {error}", flush=True)
    return _measured(command, log, sampled)


def _memory(session: int) -> float:
    """MB of proportional set size over all processes that the process `session` started, and itself."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    total = 0
    for pid in parents:
        line = pid
        while line not in (0, 1, session):
            line = parents.get(line, 0)
        if line == session:
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += next((int(row.split()[1]) for row in text.splitlines() if row.startswith("Pss:")), 0)
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    given = parser.parse_args()
    out = given.out.resolve()
    _prepare(out / "data")
    flare = _flare(out)
    own = [sys.executable, "-m", "fedprivseg.cli", "run", str(ROOT / "simulations" / "quickstart.toml")]
    for setting in _own_settings(given.rounds):
        own += ["--set", setting]
    rest = [str(out / "data"), str(SITES), str(given.rounds)]
    peers = {
        "fedprivseg": own,
        "plain Flower": [sys.executable, str(HERE / "peers" / "plain_flower.py"), *rest],
        "NVIDIA FLARE": [str(flare), str(HERE / "peers" / "flare_job.py"), *rest],
    }
    found: dict[str, list[float]] = {name: [] for name in peers}
    memories: dict[str, float] = {}
    for repeat in range(given.repeats + 1):
        for name, command in peers.items():
            words = [*command, "--out", str(out / f"run-{time.time_ns()}")] if name == "fedprivseg" else command
            # The first run finds cold pages: it is the one whose memory is sampled.
            seconds, memory = _in_time(words, out / f"{name.replace(' ', '-')}.log", sampled=repeat == 0)
            if repeat:
                found[name].append(seconds)
            else:
                memories[name] = memory
            print(f"{name}: {seconds:.1f} s" if repeat else f"{name}: {memory:.0f} MB", flush=True)
    times = {name: statistics.median(values) for name, values in found.items()}
    print("\n| | seconds | fedprivseg's time / its | MB | fedprivseg's memory / its |\n| --- | --- | --- | --- | --- |")
    for name in peers:
        ratio, share = times["fedprivseg"] / times[name], memories["fedprivseg"] / memories[name]
        print(f"| {name} | {times[name]:.1f} | {ratio:.2f} | {memories[name]:.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
