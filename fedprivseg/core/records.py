"""What crosses a boundary: frozen records, with their shapes, units and ranges.

Axes. A volume in its own geometry is ``(X, Y, Z)`` as NIfTI stores it; a stack of slices on the network grid is
``(N, H, W)`` with ``H`` along ``X`` and ``W`` along ``Y``. Distances are in mm, sizes in bytes, times in seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from fedprivseg.core.array_bytes import decoded, encoded
from fedprivseg.core.errors import PayloadError, RequestError
from fedprivseg.core.kinds import KindSpec, kind_named

MEASURES = ("dice", "hd95_mm", "assd_mm")
"""What a site measures of its test subjects; each is an array of a METRIC payload, beside ``<measure>_known``."""


@dataclass(frozen=True)
class Subject:
    """One patient of a release: where the files are and what the table says. Never leaves a site.

    Attributes:
        code: the patient's code in the release.
        centre: where the images were made, as the release has it: a number, or a name.
        split: ``train``, ``val`` or ``test``, as the release has it.
        labelled: whether there is a mask.
        frames: time point -> its 0-based frame in the files.
        image: the image's file.
        mask: the mask's file; None if there is none.
        order: the structures for which the labels 1, 2, 3... stand in the mask's file; in memory every mask has the order of
            the task.
        attributes: what else the release tells, such as ``disease``, ``sex`` or ``vendor``; "" where it is unknown.
    """

    code: str
    centre: int | str
    split: str
    labelled: bool
    frames: Mapping[str, int]
    image: Path
    mask: Path | None
    order: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """One subject at one time point, in its own geometry.

    image: (X, Y, Z) float32, scanner units. mask: (X, Y, Z) uint8, the task's labels, or None. affine: (4, 4) float64, voxel
    to mm.
    """

    image: np.ndarray
    mask: np.ndarray | None
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel edge lengths along X, Y, Z in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)


@dataclass(frozen=True)
class Grid:
    """The in-plane grid on which networks work: ``height`` x ``width`` pixels of ``spacing`` mm, centred on the volume."""

    height: int
    width: int
    spacing: float


@dataclass(frozen=True)
class Slices:
    """Slices on the network grid. images: (N, H, W) float32 in 0..1; masks: (N, H, W) uint8, the task's labels;
    subjects: (N,) int32, which subject each slice belongs to, so that any further split is by patient."""

    images: np.ndarray
    masks: np.ndarray
    subjects: np.ndarray


@dataclass(frozen=True)
class Payload:
    """The only thing that crosses a process boundary.

    kind: what it is. site: who made it. purpose: what for, in one word (``train``, ``infer``, ``measure``). arrays: named
    arrays, C-contiguous. level: sensitivity 1 (public) to 5 (strictly limited), T/SCGS 313008-2024 clause 5.5. shard and
    shards: which piece of how many. history: what was done to the data, oldest first.
    """

    kind: KindSpec
    site: str
    purpose: str
    arrays: Mapping[str, np.ndarray]
    level: int = 3
    shard: int = 0
    shards: int = 1
    history: tuple[str, ...] = field(default=())

    def encode(self) -> bytes:
        """The payload as safetensors bytes; the same payload always gives the same bytes."""
        return encoded(self.arrays, {"payload": self._header()})

    def _header(self) -> str:
        header = {
            "kind": self.kind.value,
            "site": self.site,
            "purpose": self.purpose,
            "level": self.level,
            "shard": self.shard,
            "shards": self.shards,
            "history": list(self.history),
        }
        return json.dumps(header, sort_keys=True)

    @classmethod
    def decode(cls, body: bytes) -> Payload:
        """The payload in `body`, its arrays read-only views of it. Raises PayloadError if the bytes are no payload of this
        format, or not its one encoding: what could hide beside the known fields is refused."""
        try:
            arrays, metadata = decoded(body)
            header = json.loads(metadata["payload"])
            numbers = [header[key] for key in ("level", "shard", "shards")]
            if any(type(number) is not int for number in numbers):
                raise TypeError("level, shard and shards are whole numbers")
            payload = cls(
                kind=kind_named(header["kind"]),
                site=str(header["site"]),
                purpose=str(header["purpose"]),
                arrays=MappingProxyType(arrays),
                level=numbers[0],
                shard=numbers[1],
                shards=numbers[2],
                history=tuple(str(step) for step in header["history"]),
            )
            whole = metadata == {"payload": payload._header()}
        except (
            RequestError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as fault:
            raise PayloadError(f"the bytes received are no payload ({type(fault).__name__})") from None
        if not whole:
            raise PayloadError("the bytes received hold more than the payload that can be read from them")
        return payload


def digest(body: bytes) -> str:
    """SHA-256 of encoded bytes, in hex: the name by which ledgers and receipts refer to a payload."""
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True)
class Decision:
    """What was decided: ``allowed``, the ``rule`` that decided, a ``reason`` a person can read, and the ``clause`` of
    T/SCGS 313008-2024 that asks for it, empty where none does."""

    allowed: bool
    rule: str
    reason: str
    clause: str = ""


@dataclass(frozen=True)
class Order:
    """What the server asks of a site: a method's named ``action``, the round or shard ``number``, and an ``answer`` payload
    if the action consumes one (a coded answer to decode, averaged weights to load)."""

    action: str
    number: int = 0
    answer: Payload | None = None


@dataclass(frozen=True)
class CurvePoint:
    """One site after one round: its mean training `loss` (None where it did not train or may not tell), the `dice` of the
    net on its test slices (None where it was not scored), and the `sent` bytes to and from the site until then."""

    round: int
    site: str
    loss: float | None
    dice: float | None
    sent: int


@dataclass(frozen=True)
class CrossSite:
    """Mean 3-D Dice of a network trained at one site, measured on the test subjects of another (or the same)."""

    trained_at: str
    measured_at: str
    dice: float


@dataclass(frozen=True)
class Budget:
    """Differential privacy spent on one site's data: (epsilon, delta) for the `unit` (a slice, a patient, a site) under
    the `mechanism`, with the `noise` multiplier that bought it. epsilon: None where it is infinite, that is, without a promise:
    JSON knows no infinity."""

    site: str
    mechanism: str
    unit: str
    epsilon: float | None
    delta: float
    noise: float


Entry = CurvePoint | CrossSite | Budget
"""What a method's server half records for the result beside the measures."""
