"""Attacks on what sites released. One file each, one line here."""

from __future__ import annotations

from collections.abc import Sequence

from fedprivseg.attacks.alignment import Alignment
from fedprivseg.attacks.attributes import Attributes
from fedprivseg.attacks.base import Attack
from fedprivseg.attacks.closed_form_inversion import ClosedFormInversion
from fedprivseg.attacks.code_lookup import CodeLookup
from fedprivseg.attacks.data_free import DataFree
from fedprivseg.attacks.foreign_decoder import ForeignDecoder
from fedprivseg.attacks.gradient_inversion import GradientInversion
from fedprivseg.attacks.known_plaintext import KnownPlaintext
from fedprivseg.attacks.learned_inversion import LearnedInversion
from fedprivseg.attacks.linkage import Linkage
from fedprivseg.attacks.membership import Membership
from fedprivseg.attacks.multi_step_inversion import MultiStepInversion
from fedprivseg.attacks.statistics_inversion import StatisticsInversion
from fedprivseg.attacks.surrogate import Surrogate
from fedprivseg.attacks.trained_inverter import TrainedInverter
from fedprivseg.core.plugins import Registry

ATTACKS: Registry[type[Attack]] = Registry(
    "attack",
    Attack,
    (
        ForeignDecoder,
        TrainedInverter,
        KnownPlaintext,
        Alignment,
        Surrogate,
        DataFree,
        Linkage,
        Attributes,
        CodeLookup,
        Membership,
        GradientInversion,
        LearnedInversion,
        StatisticsInversion,
        MultiStepInversion,
        ClosedFormInversion,
    ),
)

__all__ = ["ATTACKS", "Attack", "choose"]


def choose(names: Sequence[str]) -> list[type[Attack]]:
    """The attacks of these names, in the order of `ATTACKS`; all for none.

    Raises:
        ScenarioError: a name that is unknown; it names the known ones.
        RequestError: a plug-in that is broken.
    """
    if not names:
        return list(ATTACKS)
    ordered = [name for name in ATTACKS.names if name in names]
    return [ATTACKS.find(name) for name in dict.fromkeys([*ordered, *sorted(names)])]
