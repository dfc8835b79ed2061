"""What segmenting one slice takes with codes, on the CPU: at the site to encode and decode, at the server to map; and bytes.

    python tests/benchmarks/inference_cost.py [RUN | --scenario simulations/quickstart.toml] [--slices 12] [--json]

RUN is the folder of a finished run of coded segmentation. Without one the scenario's networks are trained for a step each, on
phantoms, in a folder that is gone afterwards: what they answer is worth nothing, what they take is the same. Each of these is
done for all slices in one go, with one thread, as a site does: the least ms of CPU a slice of so many repeats, which other work
on the machine disturbs least, and wall clock beside it. A slice is sent in `test_views` views, and all of them count. The
goals of a GPU have the same shape: at most 5 ms a slice in all, and at most 64 KiB both ways.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fedprivseg.core.compute import threads
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import Payload
from fedprivseg.core.results import read_result, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.phantom.consortium import write_phantom
from fedprivseg.methods import resolve
from fedprivseg.methods.method import CodedMethod
from fedprivseg.nets.test_time import average_scores, view
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.run import load_scenario, simulate

ROOT = Path(__file__).parents[2]
MOST_MS, MOST_BYTES = 5.0, 64 * 1024
BRIEF = {"image_steps": 1, "mask_steps": 1, "mapping_steps": 1, "refinement_steps": 0, "views": 1, "start": "random"}


def untrained(folder: Path, scenario: Path) -> Path:
    """A run of the scenario's method on two phantom sites, each network trained for a step."""
    release = write_phantom(folder / "release", 2, 0, centres=(1, 2))
    settings = [f'data.source="{release}"', "engine=inline", 'sites=["centre1", "centre2"]', "resources.cpus=1"]
    settings += ["resources.sites_at_once=1", *(f"method.parameters.{name}={value}" for name, value in BRIEF.items())]
    simulate(load_scenario(scenario, settings), folder / "run")
    return folder / "run"


def timed(step: Callable[[], np.ndarray], slices: int, repeats: int) -> tuple[np.ndarray, float, float]:
    """What `step` makes, and its least CPU and wall clock, ms a slice."""
    found, spent = step(), []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        found = step()
        spent.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = (min(each) / slices * 1e3 for each in zip(*spent, strict=True))
    return found, cpu, wall


def measured(run: Path, slices: int, repeats: int) -> dict[str, object]:
    """The cost at the first site that finished the run in `run`."""
    scenario = read_scenario(run)
    method = resolve(scenario.method)
    if not isinstance(method, CodedMethod) or not method.answering:
        sys.exit(f"{method.name} answers no codes with codes; give a run of coded segmentation")
    name = read_result(run).finished[0]
    configuration = SiteConfiguration.read(RunFolder(run).site(name).configuration)
    site = SiteRuntime(SiteContext(configuration, scenario))
    models, views = ModelStore(RunFolder(run).server.path), method.parameters.test_views
    images = np.resize(site.testing(), (slices, scenario.grid.height, scenario.grid.width))
    seen = np.concatenate([view(images, index) for index in range(views)])[:, None]
    with threads(1):
        codes, *encode = timed(lambda: method.encode_pictures(site, "images", seen), slices, repeats)
        answer, *map_ = timed(lambda: method.answers(site, models, codes), slices, repeats)
        _, *decode = timed(
            lambda: average_scores(method.decode_pictures(site, "masks", answer), views), slices, repeats
        )
    up, down = (
        len(Payload(kind, name, "infer", {"codes": array}).encode()) / slices
        for kind, array in ((IMAGE_CODE, codes), (MASK_CODE, answer))
    )
    steps = {"encode": encode, "map": map_, "decode": decode}
    return {
        "method": f"{method.name} {method.variant}",
        "grid": [scenario.grid.height, scenario.grid.width],
        "views": views,
        "slices": slices,
        "ms_cpu": {step: cpu for step, (cpu, _) in steps.items()},
        "ms_wall": {step: wall for step, (_, wall) in steps.items()},
        "bytes": {"up": up, "down": down},
    }


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--scenario", type=Path, default=ROOT / "simulations/quickstart.toml")
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or untrained(Path(folder), given.scenario)
        found = measured(run, given.slices, given.repeats)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    cpu, wall, size = found["ms_cpu"], found["ms_wall"], found["bytes"]
    print(f"{found['method']}, grid {found['grid']}, {found['views']} views of each of {found['slices']} slices")
    print("| | encode | map | decode | in all | goal |\n| --- | --- | --- | --- | --- | --- |")
    for what, each in (("ms of CPU a slice", cpu), ("ms of wall clock a slice", wall)):
        print(
            f"| {what} | {' | '.join(f'{ms:.1f}' for ms in each.values())} | {sum(each.values()):.1f} | {MOST_MS:g} |"
        )
    both = size["up"] + size["down"]
    print(
        f"| KiB a slice | {size['up'] / 1024:.1f} | {size['down'] / 1024:.1f} | | {both / 1024:.1f} | {MOST_BYTES / 1024:g} |"
    )


if __name__ == "__main__":
    main()
