"""Attacks on what sites released. One file each, one line here."""

from __future__ import annotations

from collections.abc import Sequence

from fedprivseg.attacks.alignment import Alignment
from fedprivseg.attacks.attack import Reconstruction
from fedprivseg.attacks.data_free import DataFree
from fedprivseg.attacks.foreign_decoder import ForeignDecoder
from fedprivseg.attacks.known_plaintext import KnownPlaintext
from fedprivseg.attacks.surrogate import Surrogate
from fedprivseg.attacks.trained_inverter import TrainedInverter
from fedprivseg.errors import RequestError

ATTACKS: tuple[type[Reconstruction], ...] = (
    ForeignDecoder,
    TrainedInverter,
    KnownPlaintext,
    Alignment,
    Surrogate,
    DataFree,
)

__all__ = ["ATTACKS", "Reconstruction", "choose"]


def choose(names: Sequence[str]) -> list[type[Reconstruction]]:
    """The attacks of these names, in the order of `ATTACKS`; all for none. Raises RequestError naming the known ones."""
    known = {attack.name: attack for attack in ATTACKS}
    if unknown := sorted(set(names) - set(known)):
        raise RequestError(f"unknown attack {unknown[0]!r}; the attacks are: {', '.join(known)}")
    return [attack for name, attack in known.items() if not names or name in names]
