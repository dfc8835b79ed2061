"""What tiny runs of every method come to: the digests and plain numbers that `test_golden.py` compares with those kept here.

    python tests/golden/remake.py                      every case anew, into the files beside this one
    python tests/golden/remake.py fedavg secagg        only these
    python tests/golden/remake.py --to /tmp/now        into another folder, to look at
    python tests/golden/remake.py --native --to ...    with all the processor's instructions instead of AVX2 alone

Run it from anywhere with the package importable. It refuses nothing: remaking is right only when results are meant to change,
and the commit that does it says why they do. Moving or renaming code is no reason; for names that stand in a run's folder,
see `RENAMED`.

Each case is one small file: ``metrics.csv`` as a digest and as means by site, and every group of arrays that the server keeps
(``server/**/*.safetensors``; files of one folder are one group) or a site keeps in its vault (unsealed here; numbered files are
one group) as a digest of names, types, shapes and bytes, and as count, mean and standard deviation.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

FIXED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
}
"""Bits depend on the instructions that libraries choose; under these, fewer choices are left to them."""

RENAMED: dict[str, str] = {}
"""Names of folders, files and arrays in a run's ``server/``, as they are now: as they were when the files here were made."""

ADDED = {("testing-slices", "subjects")}
"""Arrays that stand in a file today and did not when the files here were made: (group's own name, array)."""

SHORT = {
    "image_steps": 3,
    "image_rate": 4e-3,
    "mask_steps": 3,
    "mask_rate": 6e-3,
    "mapping_steps": 6,
    "mapping_rate": 6e-3,
    "trunk_width": 16,
    "trunk_levels": 2,
    "views": 2,
    "shard_slices": 24,
    "rounds": 2,
    "local_steps": 2,
    "batch": 8,
    "steps": 3,
    "curve_points": 1,
    "test_views": 2,
}
CODED = (
    *("image_steps", "image_rate", "mask_steps", "mask_rate", "mapping_steps", "mapping_rate"),
    *("trunk_width", "trunk_levels", "views", "test_views", "shard_slices"),
)
ROUNDS = ("rounds", "local_steps", "batch", "curve_points", "test_views")
POOLED = ("steps", "batch", "test_views")
GUARDED = (
    'protections=[{name="channels", of=["image-code"], parameters={keep=0.75}}, '
    '{name="noise", of=["image-code"], parameters={multiplier=0.5}}, '
    '{name="keyed", of=["image-code"]}, '
    '{name="precision", of=["image-code", "mask-code"], parameters={bits=6, least=-4, most=4}}]'
)
LOCAL_DP = ("method.parameters.dp={epsilon=8.0, unit='slice'}",)

START = ("method.parameters.start=phantom", "method.parameters.start_subjects=2", "method.parameters.start_steps=3")

GROUP = "method.parameters.norm=group"  # after few steps such nets show structures where others show none yet

# Case: method, variant, which of SHORT it has, further settings.
CASES: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "coded-improved": ("privacy-sf", "improved", CODED, ()),
    "coded-paper": ("privacy-sf", "paper", CODED, ()),
    "coded-protected": ("privacy-sf", "improved", CODED, (GUARDED,)),
    "local-only": ("local-only", "default", ROUNDS, (GROUP,)),
    "pooled": ("pooled", "default", POOLED, ("policy.raw_sharing=allowed", GROUP)),
    "fedavg": ("fedavg", "default", ROUNDS, ()),
    "public-start": ("fedavg", "default", ROUNDS, START),
    "coded-federated": (
        "coded-federated",
        "default",
        CODED,
        (
            *START,
            "method.parameters.averaging={rounds=2, local_steps=2, batch=8, test_views=1, summation='fixed-point'}",
        ),
    ),
    "phantom-distillation": (
        "phantom-distillation",
        "default",
        ROUNDS,
        (*START, "method.parameters.public_slices=8", "method.parameters.distil_steps=2", GROUP),
    ),
    "fixed-point": ("fedavg", "default", ROUNDS, ("method.parameters.summation=fixed-point", GROUP)),
    "secagg": ("fedavg", "default", ROUNDS, ("method.parameters.summation=secure", GROUP)),
    "local-dp": ("fedavg", "default", ROUNDS, LOCAL_DP),
    "central-dp": ("fedavg-central-dp", "default", ROUNDS, ()),
    **{
        name: (name, "default", ROUNDS, (GROUP,) if name in ("ditto", "fedadam", "fedmedian", "fednova") else ())
        for name in (
            *(
                "fedprox",
                "fedbn",
                "scaffold",
                "fednova",
                "feddyn",
                "ditto",
                "fedavgm",
                "fedadam",
                "fedyogi",
                "fedadagrad",
            ),
            *("qfedavg", "fedmedian", "fedtrimmedavg", "krum", "bulyan", "selective-sharing"),
        )
    },
}


def settings(case: str) -> list[str]:
    """What follows ``--set`` on top of the quickstart: three centres of three phantom subjects, float32 on the processor."""
    from conftest import tiny_settings

    method, variant, short, more = CASES[case]
    named = [
        f"method.name={method}",
        f"method.variant={variant}",
        "method.parameters={}",
        "method.parameters.half=false",
    ]
    named += [f"method.parameters.{key}={SHORT[key]}" for key in short]
    return [*tiny_settings(Path("phantom")), "data.subjects=2", "grid.spacing=3.0", *named, *more]


def facts() -> dict[str, str]:
    """What the bits of a result depend on beside the code."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = {name: cpu.get(name, "") for name in ("vendor_id", "cpu family", "model", "model name")}
    packages = {name: version(name) for name in ("torch", "numpy", "scipy", "monai", "opacus")}
    return {
        **known,
        **packages,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def outcome(run: Path) -> dict:
    """What the run in the folder `run` came to."""
    return {"metrics": _metrics(run / "metrics.csv"), "arrays": _arrays(run)}


def _text(content: dict) -> str:
    """JSON with a line for each group of arrays and each site."""
    leaves: list[str] = []

    def shaped(value: object, depth: int) -> object:
        if isinstance(value, dict) and depth < 3 and any(isinstance(each, dict) for each in value.values()):
            return {key: shaped(each, depth + 1) for key, each in value.items()}
        leaves.append(json.dumps(value))
        return f"@{len(leaves) - 1}@"

    text = json.dumps(shaped(content, 0), indent=1)
    for number, leaf in enumerate(leaves):
        text = text.replace(f'"@{number}@"', leaf)
    return text + "\n"


def _metrics(path: Path) -> dict:
    cells = defaultdict(list)
    for row in csv.DictReader(path.open(newline="")):
        for measure in ("dice", "hd95_mm", "assd_mm"):
            cells[row["site"], measure].append(row[measure])
    sites: dict = defaultdict(dict)
    for (site, measure), texts in cells.items():
        values = [float(text) for text in texts if text]
        mean = sum(values) / len(values) if values else None
        sites[site][measure] = {"rows": len(texts), "known": len(values), "mean": mean}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "sites": sites}


def _arrays(run: Path) -> dict:
    import numpy as np
    from safetensors.numpy import load_file

    groups = defaultdict(list)
    for path in sorted([*run.glob("server/**/*.safetensors"), *run.glob("sites/*/vault/*.safetensors")]):
        folder, _, file = _old(path.relative_to(run).with_suffix("").as_posix()).rpartition("/")
        many = folder.startswith("server/")
        group = folder if many else f"{folder}/{file.rstrip('0123456789').rstrip('-')}"
        groups[group].append((file, load_file(path)))
    found = {}
    for group, files in sorted(groups.items()):
        digest, values = hashlib.sha256(), []
        for file, arrays in sorted(files, key=lambda each: each[0]):
            digest.update(file.encode())
            for name, array in sorted((_old(name), array) for name, array in arrays.items()):
                if (group.rpartition("/")[2], name) in ADDED:
                    continue
                digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
                values.append(array.ravel())
        # Counters beside weights are not the numbers that are meant.
        floats = [array for array in values if array.dtype.kind == "f"]
        flat = np.concatenate([np.zeros(0), *(array.astype(np.float64) for array in floats or values)])
        flat = flat[np.isfinite(flat)]
        numbers = (
            {"count": len(flat), "mean": float(flat.mean()), "std": float(flat.std())} if len(flat) else {"count": 0}
        )
        found[group] = {"sha256": digest.hexdigest(), **numbers}
    return found


def _old(name: str) -> str:
    return "/".join(RENAMED.get(part, part) for part in name.split("/"))


def _here(cases: list[str], to: Path) -> None:
    sys.path.insert(0, str(HERE.parent))
    from fedprivseg import load_scenario, simulate

    to.mkdir(parents=True, exist_ok=True)
    for case in cases:
        folder = Path(tempfile.mkdtemp())
        try:
            simulate(load_scenario(ROOT / "simulations" / "quickstart.toml", settings(case)), folder / "run")
            content = {"case": case, "facts": facts(), **outcome(folder / "run")}
            (to / f"{case}.json").write_text(_text(content))
        finally:
            shutil.rmtree(folder)


def make(to: Path, *cases: str, native: bool = False) -> None:
    """Run `cases` (none: all) in one process of their own, and write what each came to into the folder `to`."""
    words = [sys.executable, __file__, "--here", "--to", str(to), *cases]
    threads = {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with tempfile.TemporaryDirectory() as cache:
        own = {**os.environ, **threads, "FEDPRIVSEG_CACHE": cache, **({} if native else FIXED)}
        done = subprocess.run(words, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="none: all")
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; the cases are {', '.join(CASES)}")
    if given.here:
        _here(given.cases or list(CASES), given.to)
    else:
        make(given.to, *given.cases, native=given.native)
