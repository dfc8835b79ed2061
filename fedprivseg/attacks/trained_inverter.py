"""A decoder trained on the site's own encoder: the strongest attack of an adversary that may query it.

Who may: another site that runs the same software for the site, a vendor of the encoder, whoever holds a copy of its weights.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Knowledge, Reconstruction, View
from fedprivseg.attacks.inversion_net import inverted, multiplied

COPIES = 3
"""Warped copies of each auxiliary picture that are queried besides."""

HELD_OUT = 0.15
"""Share of the auxiliary pictures, the last ones, that validate the training."""


@final
class TrainedInverter(Reconstruction):
    """Queries the encoder with auxiliary pictures and learns the inverse map."""

    name = "trained-inverter"
    title = "Trained inverter"
    paper = "Dosovitskiy and Brox, CVPR 2016; Li et al. (DeepObfuscator), IoTDI 2021"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.AUXILIARY, Knowledge.QUERY})

    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """One setting."""
        assert view.auxiliary is not None
        assert view.query is not None
        cut = max(1, round(len(view.auxiliary) * (1 - HELD_OUT)))
        pictures = multiplied(view.auxiliary[:cut], view.what, COPIES, view.seed, self.name)
        rest = view.auxiliary[cut:]
        codes = view.query(pictures)
        held_out = (rest, view.query(rest)) if len(rest) else None
        return {"": inverted(view, pictures, codes, view.effort.steps, (self.name,), held_out)}
