"""What a mask alone tells of its image: the least that any code can leak from which the true mask can be drawn.

    python tests/benchmarks/mask_bound.py RUN [--cells 1 4 8] [--site centre1]

RUN is a finished run whose data is at hand; of it only the sites' data and grid are used, no code and no result. An attacker
is given the true masks of a site's test slices, averaged over square cells, and learns to draw images from masks on what the
other sites have, as the trained inverter does from codes. Prints Markdown: normalised leakage, as `fedprivseg attack` has it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fedprivseg.attacks.base import SMALL, View
from fedprivseg.attacks.inversion_net import WARP, inverted
from fedprivseg.attacks.metrics import Truth, evaluate
from fedprivseg.attacks.trained_inverter import COPIES, HELD_OUT
from fedprivseg.core.compute import threads
from fedprivseg.core.measures import LABELS
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.seeds import torch_generator
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.nets.augment import augment
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.ground_truth import ground_truth
from fedprivseg.study.leakage.attack_session import MOST_AUXILIARY

MEASURES = "SSIM", "MS-SSIM", "SSIM, heart"


def main() -> None:
    """Prints one row a size of cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--site", default="centre1")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4, 8], help="pixels a side")
    asked = parser.parse_args()
    scenario = read_scenario(asked.run)
    benches = {
        site.name: SiteRuntime(
            SiteContext(SiteConfiguration.read(RunFolder(asked.run).site(site.name).configuration), scenario)
        )
        for site in scenario.sites
    }
    others = [ground_truth(bench, "train") for name, bench in sorted(benches.items()) if name != asked.site]
    images, masks = (np.concatenate([getattr(other, what) for other in others]) for what in ("images", "masks"))
    spread = np.linspace(0, len(images) - 1, min(MOST_AUXILIARY, len(images))).round().astype(int)
    images, masks = images[spread], masks[spread]
    victims = ground_truth(benches[asked.site], "test")
    truth = Truth(victims.images[:, None], victims.subjects, victims.masks, "images", "heart")
    print(f"| cell | {' | '.join(MEASURES)} |\n| --- | {'--- | ' * len(MEASURES)}")
    with threads(scenario.resources.cpus):
        for side in asked.cells:
            print(_row(side, images, masks, truth, scenario.seed), flush=True)


def _row(side: int, images: np.ndarray, masks: np.ndarray, truth: Truth, seed: int) -> str:
    """The attack with cells of `side` pixels: images, masks (M, H, W) are what the attacker holds."""
    from torch import from_numpy  # after the package, which tells OpenMP how to wait

    cut = round(len(images) * (1 - HELD_OUT))
    draws = torch_generator(seed, "mask bound", side)
    pictures, codes = [images[:cut, None]], [_coarse(masks[:cut], side)]
    for _ in range(COPIES):
        warped, labels = augment(from_numpy(images[:cut, None]), from_numpy(masks[:cut]), WARP, draws)
        pictures.append(warped.numpy())
        codes.append(_coarse(labels.numpy(), side))
    given = np.concatenate(pictures), np.concatenate(codes)
    rest = images[cut:, None], _coarse(masks[cut:], side)
    view = View(_coarse(truth.masks, side), truth.pictures.shape[1:], "images", SMALL, seed)
    output = inverted(view, *given, SMALL.steps, ("mask bound",), rest).clip(0, 1)
    found = {each.metric: each.leakage for each in evaluate(output, truth, images[:, None])}
    return f"| {side} x {side} | {' | '.join(f'{found[name]:.2f}' for name in MEASURES)} |"


def _coarse(masks: np.ndarray, side: int) -> np.ndarray:
    """Masks (N, H, W) -> the share of each structure in cells of side x side pixels, (N, 3, H / side, W / side)."""
    shown = masks[:, None] == np.array(LABELS)[:, None, None]
    count, _, height, width = shown.shape
    shares = shown.reshape(count, len(LABELS), height // side, side, width // side, side).mean(axis=(3, 5))
    return shares.astype(np.float32)


if __name__ == "__main__":
    main()
