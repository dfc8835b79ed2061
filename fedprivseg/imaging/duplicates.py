"""One scan under two codes: it would train and test, or count as two patients. Found by the voxels, whatever files are called.

An *opening* is the first slice of the first labelled frame. Scans whose openings differ differ, and reading one costs little
more than a header; so it picks the candidates. A *fingerprint* is a whole annotated frame, and decides. Both are of values,
so a copy is found that was compressed, typed or cut to its annotated frames.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fedprivseg.imaging.geometry import Limits
from fedprivseg.imaging.nifti import opened


def fingerprint(image: np.ndarray) -> str:
    """SHA-256 of shape and values of `image` (X, Y, Z), as float32."""
    values = np.ascontiguousarray(image, dtype=np.float32)
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()


def opening(path: Path, frame: int, limits: Limits) -> str:
    """What `fingerprint` says of the first slice of `frame` in the image `path`, with the shape of its frames. Raises
    FileFault."""
    with opened(path, limits) as file:
        return f"{file.geometry.shape} {fingerprint(file.first_slice(frame))}"


def together(marks: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    """Groups of codes, each sorted, that share a mark; marks: code -> its openings or fingerprints. A code stands in one group
    at most: who shares a mark with one of a group is in it."""
    owners: dict[str, set[str]] = {}
    for code, own in marks.items():
        for mark in own:
            owners.setdefault(mark, set()).add(code)
    groups: list[set[str]] = []
    for codes in owners.values():
        touched = [group for group in groups if group & codes]
        groups = [group for group in groups if not group & codes] + [codes.union(*touched)]
    return tuple(sorted(tuple(sorted(group)) for group in groups if len(group) > 1))
