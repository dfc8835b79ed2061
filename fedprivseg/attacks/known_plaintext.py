"""A few of the site's own pictures with their codes: what leaks, for instance, when a patient publishes a scan."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Knowledge, Reconstruction, View
from fedprivseg.attacks.inversion_net import inverted

COUNTS = (1, 5, 10, 50)
"""How many pairs the adversary has."""


@final
class KnownPlaintext(Reconstruction):
    """A decoder trained on k pairs and nothing else."""

    name = "known-plaintext"
    title = "Known plaintext"
    paper = "Guo and Wu, PKDD 2007; Chen and Liu, ICDM 2005 (on rotations); here with a trained decoder"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.PAIRS})

    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """One setting for each number of pairs that there are."""
        return {
            f"k = {len(pictures)}": inverted(view, pictures, codes, view.effort.inner, (self.name, len(pictures)))
            for pictures, codes in view.some_pairs(COUNTS)
        }
