"""FedBN: everything is averaged but the normalisation layers, which stay at each site (Li et al., ICLR 2021, algorithm 1).

What scanners differ in most, the scale and offset of features, is then never mixed between hospitals.
"""

from __future__ import annotations

from typing import final

from fedprivseg.methods.client_update import ClientUpdateRule
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import SummableParameters


@final
class FedBN(Rounds):
    """Averaging with local normalisation layers."""

    name = "fedbn"
    title = "FedBN"
    paper = "Li et al., ICLR 2021, algorithm 1"
    parameters_type = SummableParameters
    parameters: SummableParameters

    def client_update(self) -> ClientUpdateRule:
        """Normalisation layers are personalised."""
        from fedprivseg.nets.baseline import norm_names

        return ClientUpdateRule(personalised=norm_names)
