"""What a GPU is good for here, in at most ten minutes: prints Markdown.

    python tests/device/measure.py                      everything, on the first GPU
    python tests/device/measure.py --only training      one part: peak, training, agreement, packing, inference, averaging
    python tests/device/measure.py --dry                the same code on the CPU, on tiny shapes, to see that it runs

A part that no longer fits into the time is left out, and said to be. A part that fails says why, and the others go on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from peak import Peak, peak

LIMIT_S = 570.0
"""After so many seconds nothing more is begun: a device is lent for ten minutes."""

Table = tuple[str, list[str], Callable[[], list[list[str]]]]


def tables(device: str, dry: bool, best: Peak) -> dict[str, Table]:
    """Part -> its title, its columns, and what fills it."""
    import averaging
    import inference
    import packing
    import training

    side, batches, steps = (32, (2,), 2) if dry else (128, (16, 128), 20)
    seconds, packs = (0.2, ((1, 1), (2, 2))) if dry else (5.0, ((1, 1), (5, 5), (50, 10), (50, 50)))

    def packed() -> list[list[str]]:
        found = []
        for sites, at_once in packs:
            rate, memory, fault = packing.packed(device, sites, side, 16 if not dry else 2, seconds, at_once)
            found.append([str(sites), str(at_once), f"{rate:,.0f}", f"{memory:.0f}", fault or "none"])
        return found

    return {
        "peak": (
            "Roofline, measured",
            ["float32, TFLOP/s", "bfloat16, TFLOP/s", "copy, GB/s"],
            lambda: [[f"{best.float32 / 1e12:.1f}", f"{best.bfloat16 / 1e12:.1f}", f"{best.copied / 1e9:.0f}"]],
        ),
        "training": (
            f"Training steps, slices of {side} x {side}",
            ["net", "batch", "way", "slices/s", "TFLOP/s", "of what the roofline allows"],
            lambda: training.rows(device, best, side, batches),
        ),
        "agreement": (
            f"How far the loss after {steps} steps lies from the CPU's in float32, as a share of it",
            ["net", "float32", "bfloat16"],
            lambda: training.differences(device, side, steps),
        ),
        "packing": (
            "Sites packed: U-Net, every site a process with its share of the memory",
            ["sites", "at once", "slices/s of all", "MiB of the hungriest", "faults"],
            packed,
        ),
        "inference": (
            f"Inference with codes; goals: {inference.MOST_MS:g} ms a slice, {inference.MOST_BYTES:,} bytes both ways",
            ["slices at once", "encode ms", "map ms", "decode ms", "all ms", "bytes both ways", "goals kept"],
            lambda: inference.rows(device, side, (1, batches[-1])),
        ),
        "averaging": (
            "A round of federated averaging, three sites, five steps each, whole programs under Ray",
            ["program", "seconds a round", "whole run"],
            lambda: averaging.rows(0.0 if device == "cpu" else 1.0, dry),
        ),
    }


def main() -> None:
    """Prints every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="a part; may be repeated")
    parser.add_argument("--dry", action="store_true", help="on the CPU, tiny")
    given = parser.parse_args()
    if not given.dry and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --dry tries the same code on the CPU")
    begun, device = time.perf_counter(), "cpu" if given.dry else "cuda"
    name = "CPU, dry: the numbers mean nothing" if given.dry else torch.cuda.get_device_name()
    if given.dry:
        torch.set_num_threads(1)  # threads of a busy machine wait for each other
    print(f"{name}, torch {torch.__version__}\n", flush=True)
    parts = tables(device, given.dry, peak(device, given.dry))
    if unknown := sorted(set(given.only or ()) - set(parts)):
        sys.exit(f"no part {unknown[0]!r}; parts are: {', '.join(parts)}")
    failed = False
    for part, (title, columns, fill) in parts.items():
        if given.only and part not in given.only:
            continue
        if time.perf_counter() - begun > LIMIT_S:
            print(f"## {title}\n\nLeft out: {LIMIT_S:.0f} s are over.\n", flush=True)
            continue
        start = time.perf_counter()
        try:
            rows = fill()
        except Exception as fault:  # the others go on
            failed = True
            print(f"## {title}\n\nFailed: {type(fault).__name__}: {fault}\n", flush=True)
            continue
        lines = [columns, ["---"] * len(columns), *rows]
        print(f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
        print(f"\n{time.perf_counter() - start:.0f} s\n", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
