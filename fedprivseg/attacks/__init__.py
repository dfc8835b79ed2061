"""Attacks on what sites released. One file each, one line here."""

from __future__ import annotations

from collections.abc import Sequence

from fedprivseg.attacks.alignment import Alignment
from fedprivseg.attacks.attributes import Attributes
from fedprivseg.attacks.base import Reconstruction
from fedprivseg.attacks.data_free import DataFree
from fedprivseg.attacks.foreign_decoder import ForeignDecoder
from fedprivseg.attacks.gradient_inversion import GradientInversion
from fedprivseg.attacks.known_plaintext import KnownPlaintext
from fedprivseg.attacks.learned_inversion import LearnedInversion
from fedprivseg.attacks.linkage import Linkage
from fedprivseg.attacks.membership import Membership
from fedprivseg.attacks.people import Inference
from fedprivseg.attacks.surrogate import Surrogate
from fedprivseg.attacks.trained_inverter import TrainedInverter
from fedprivseg.core.errors import RequestError

ATTACKS: tuple[type[Reconstruction], ...] = (
    ForeignDecoder,
    TrainedInverter,
    KnownPlaintext,
    Alignment,
    Surrogate,
    DataFree,
)

INFERENCES: tuple[type[Inference], ...] = (Linkage, Attributes, Membership)

UpdateAttack = GradientInversion | LearnedInversion

UPDATES: tuple[type[UpdateAttack], ...] = (GradientInversion, LearnedInversion)

__all__ = ["ATTACKS", "INFERENCES", "UPDATES", "Inference", "Reconstruction", "UpdateAttack", "choose"]


def choose(
    names: Sequence[str],
) -> tuple[list[type[Reconstruction]], list[type[Inference]], list[type[UpdateAttack]]]:
    """The attacks of these names, in the order of the tuples: on codes, about people, on updates; all for none.

    Raises RequestError naming the known ones.
    """
    known = [attack.name for attack in (*ATTACKS, *INFERENCES, *UPDATES)]
    if unknown := sorted(set(names) - set(known)):
        raise RequestError(f"unknown attack {unknown[0]!r}; the attacks are: {', '.join(known)}")
    return (
        [attack for attack in ATTACKS if not names or attack.name in names],
        [attack for attack in INFERENCES if not names or attack.name in names],
        [attack for attack in UPDATES if not names or attack.name in names],
    )
