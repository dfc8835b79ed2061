"""The README's table: coded segmentation beside a pooled and a local U-Net, on the same subjects, grid and seeds.

    python tests/benchmarks/coded_table.py DATA [--out runs/table] [--seeds 0 1 2] [--steps 1500] [--threads 2]

DATA is a folder in the layout of the M&Ms release with centres 1, 2 and 3. For each seed: both variants through
`fedprivseg run` (their wall time is that of the whole run), then the U-Net of `nets/unet.py` (the codec's widths, the same
augmentation, loss and views at test time), trained on all three centres' training slices (pooled) and on each centre's
alone (local). Finished pieces are kept under --out and found again. Prints Markdown: 3-D Dice on the original grid, mean of
LV, MYO and RV over test subjects and phases; mean and standard deviation over the seeds; wall time and bytes.

The U-Nets are reference lines, not methods: raw images would have to leave the hospitals for the pooled one.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np

from fedprivseg.core.compute import threads
from fedprivseg.core.config import Scenario
from fedprivseg.core.measures import dice, hd95_mm
from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.splits import Cohort, cohort
from fedprivseg.imaging.volumes import from_grid, gridded, gridded_slices
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.choices import VIEWS
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting, fit_unet, scores
from fedprivseg.nets.test_time import average_scores, view
from fedprivseg.nets.unet import UNet
from fedprivseg.study.run import cache_folder, load_scenario, simulate

ROOT = Path(__file__).parents[2]
LOAD = partial(MnMs().load, task=default_task())


def _unet(cohorts: list[Cohort], scenario: Scenario, name: str, steps: int) -> tuple[UNet, float]:
    """A U-Net fitted to the training slices of `cohorts`, and the seconds that took."""
    subjects = [subject for each in cohorts for subject in each.train]
    slices = gridded_slices(LOAD, subjects, scenario.grid.grid(), cache_folder() / "grid" / "table")
    fitting = Fitting(Schedule(steps), Augmentation(), scenario.seed, ("unet", name), 3)
    start = time.perf_counter()
    return fit_unet(slices.images, slices.masks, fitting), time.perf_counter() - start


def _test(net: UNet, each: Cohort, scenario: Scenario) -> dict[str, float]:
    """Mean Dice and HD95 over test subjects, phases and structures, as `fedprivseg run` measures them."""
    grid = scenario.grid.grid()
    dices, distances = [], []
    for subject in each.test:
        images = gridded(LOAD, subject, grid, cache_folder() / "grid" / "table")
        for phase, volume in LOAD(subject).items():
            seen = np.concatenate([view(images[phase][0], index) for index in range(len(VIEWS))])
            mean = average_scores(scores(net, seen[:, None]), len(VIEWS))
            shape = volume.image.shape[0], volume.image.shape[1], volume.image.shape[2]
            labels = from_grid(mean, shape, volume.spacing, grid)
            dices.append(dice(labels, volume.mask, 3))
            distances.append(hd95_mm(labels, volume.mask, volume.spacing, 3))
    return {
        "dice": float(np.nanmean(dices, axis=0).mean()),
        # A structure that is never found has no distance, and then the mean over structures has none either.
        "hd95_mm": float(
            _mean(np.array([_mean(structure) for structure in np.transpose(distances)]), all_of_them=True)
        ),
    }


def _mean(values: np.ndarray, *, all_of_them: bool = False) -> float:
    """Mean of the finite values, NaN where there are none (or, with `all_of_them`, where one is missing)."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) and (len(found) == len(values) or not all_of_them) else float("nan")


def _references(scenario: Scenario, data: Path, steps: int, out: Path) -> dict[str, dict[str, object]]:
    """Pooled and local lines of one seed, kept in `out`."""
    if out.exists():
        return json.loads(out.read_text())
    subjects = MnMs().read(data).subjects
    cohorts = {site.name: cohort(subjects, site, scenario.data) for site in scenario.sites}
    found: dict[str, dict[str, object]] = {}
    with threads(scenario.resources.cpus):
        pooled, seconds = _unet(list(cohorts.values()), scenario, "pooled", steps)
        each = {name: _test(pooled, mine, scenario) for name, mine in cohorts.items()}
        found["pooled U-Net"] = {"sites": each, "seconds": seconds}
        each, total = {}, 0.0
        for name, mine in cohorts.items():
            # A third of the pooled steps each: all three together cost what the pooled net costs.
            net, seconds = _unet([mine], scenario, name, max(1, steps // len(cohorts)))
            each[name], total = _test(net, mine, scenario), total + seconds
        found["local U-Net"] = {"sites": each, "seconds": total}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found))
    return found


def _spread(values: np.ndarray) -> str:
    """Standard deviation over seeds (n - 1)."""
    return f"{values.std(ddof=1):.3f}" if len(values) > 1 else "-"


def _row(name: str, runs: list[dict[str, object]]) -> str:
    sites = sorted(runs[0]["sites"])
    values = np.array([[run["sites"][site]["dice"] for site in sites] for run in runs])
    distances = np.array([run["sites"][site]["hd95_mm"] for run in runs for site in sites], float)
    defined = int(np.isfinite(distances).sum())
    distance = f"{_mean(distances):.1f}" if defined else "-"
    # A site where a structure was never found has no distance: the mean is over the others, and says over how many.
    if 0 < defined < len(distances):
        distance += f" ({defined} of {len(distances)})"
    each = [f"{value.mean():.3f} ± {_spread(value)}" for value in values.T]
    mean = values.mean(axis=1)
    seconds = np.mean([run["seconds"] for run in runs])
    sent = np.mean([run.get("bytes", 0) for run in runs]) / 1e6
    cells = [
        name,
        *each,
        f"**{mean.mean():.3f} ± {_spread(mean)}**",
        distance,
        f"{seconds / 60:.1f}",
        f"{sent:.0f}" if sent else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--steps", type=int, default=1500, help="steps of the pooled U-Net; a third of it for each local one"
    )
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a scenario setting, for all runs")
    given = parser.parse_args()
    table: dict[str, list[dict[str, object]]] = {}
    for seed in given.seeds:
        settings = [f"data.source={json.dumps(str(given.data))}", f"seed={seed}", *given.settings]
        for variant, file in (("improved", "mnms-coded.toml"), ("paper", "mnms-coded-paper.toml")):
            scenario = load_scenario(ROOT / "simulations" / file, settings)
            result = simulate(scenario, given.out / f"{variant}-{seed}")
            sites = {name: {"dice": s.dice.mean, "hd95_mm": s.hd95_mm.mean} for name, s in result.sites.items()}
            sent = sum(site.bytes_up + site.bytes_down for site in result.sites.values())
            run = {"sites": sites, "seconds": result.wall_s, "bytes": sent}
            table.setdefault(f"coded, {variant}", []).append(run)
            print(f"seed {seed}: {variant} {result.overall_dice:.4f} in {result.wall_s:.0f} s", flush=True)
        for name, run in _references(scenario, given.data, given.steps, given.out / f"references-{seed}.json").items():
            table.setdefault(name, []).append(run)
            print(
                f"seed {seed}: {name} {np.mean([s['dice'] for s in run['sites'].values()]):.4f} in {run['seconds']:.0f} s",
                flush=True,
            )
    sites = sorted(next(iter(table.values()))[0]["sites"])
    print("\n| | " + " | ".join(f"Dice {site}" for site in sites) + " | mean Dice | HD95 mm | minutes | MB sent |")
    print("| --- " * (len(sites) + 5) + "|")
    for name, runs in table.items():
        print(_row(name, runs))


if __name__ == "__main__":
    main()
