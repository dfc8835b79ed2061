"""FedBN: everything is averaged but the normalisation layers, which stay at each site (Li et al., ICLR 2021, algorithm 1).

What scanners differ in most, the scale and offset of features, is then never mixed between hospitals.
"""

from __future__ import annotations

from typing import final

from fedprivseg.methods.client_update import LocalRule
from fedprivseg.methods.flower_strategy import ANY_NUMBER, FlowerStrategy
from fedprivseg.methods.rounds import Aggregation, Rounds
from fedprivseg.methods.training import SummableParameters


@final
class FedBN(Rounds):
    """Averaging with local normalisation layers."""

    name = "fedbn"
    title = "FedBN"
    paper = "Li et al., ICLR 2021, algorithm 1"
    parameters_type = SummableParameters
    parameters: SummableParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedAvg over what travels."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.FedAvg(**ANY_NUMBER))

    def local(self) -> LocalRule:
        """Normalisation layers stay home."""
        from fedprivseg.nets.baseline import norm_names

        return LocalRule(stays_home=norm_names)
