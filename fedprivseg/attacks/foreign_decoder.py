"""What papers of this family report: the decoder of one site applied to the codes of another.

Weak by construction, since its adversary learns nothing (see the README's note on evaluations that cannot fail). It is here
because it is what others measured.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Knowledge, Reconstruction, View


@final
class ForeignDecoder(Reconstruction):
    """Every other site's own decoder on this site's codes."""

    name = "foreign-decoder"
    title = "Foreign decoder"
    paper = "the test of Chen et al. 2024 and of Bello et al. 2026 (arXiv 2603.05541)"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.FOREIGN})

    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """One setting for each other site."""
        assert view.foreign is not None
        return {f"of {site}": decode(view.codes) for site, decode in sorted(view.foreign.items())}
