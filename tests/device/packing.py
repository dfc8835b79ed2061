"""Sites on one GPU: so many processes train at once, each with its share of the memory.

python tests/device/packing.py DEVICE SITES SIDE BATCH SECONDS      one site; others start it
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import torch


def packed(device: str, sites: int, side: int, batch: int, seconds: float, at_once: int) -> tuple[float, float, str]:
    """`sites` sites, `at_once` of them at a time: (slices a second of all together, MiB of the hungriest, what went wrong).

    Each trains the U-Net in half precision for so many `seconds` once all of its turn have begun.
    """
    slices, most, faults = 0.0, 0.0, []
    begun = time.perf_counter()
    for first in range(0, sites, at_once):
        count = min(at_once, sites - first)
        words = [sys.executable, __file__, device, str(at_once), str(side), str(batch), str(seconds)]
        running = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for each in running:
            each.stdout.readline()  # it has warmed up
        begun = time.perf_counter() if first == 0 else begun
        for each in running:
            each.stdin.write("\n")
            each.stdin.flush()
        for each in running:
            out, err = each.communicate()
            if each.returncode:
                faults.append(err.strip().splitlines()[-1][:80] if err.strip() else f"status {each.returncode}")
                continue
            done, memory = map(float, out.split())
            slices, most = slices + done, max(most, memory)
    turns = -(-sites // at_once)
    return slices / (seconds * turns), most, "; ".join(sorted(set(faults)))


def _site(device: str, at_once: int, side: int, batch: int, seconds: float) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from training import WAYS, Training, subjects

    torch.set_num_threads(1)
    if device.startswith("cuda"):
        torch.cuda.set_per_process_memory_fraction(min(1.0, 0.95 / at_once))
    training = Training(subjects(side)["U-Net"], device, batch, WAYS["bfloat16" if device != "cpu" else "float32"])
    for _ in range(3):
        training.step()
    print("ready", flush=True)
    sys.stdin.readline()
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        training.step()
        float(training.loss.detach())  # waits for the device
        count += 1
    memory = torch.cuda.max_memory_reserved() / 2**20 if device.startswith("cuda") else 0.0
    print(count * batch, memory)


if __name__ == "__main__":
    _site(sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]))
