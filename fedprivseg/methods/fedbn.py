"""FedBN: everything is averaged but the normalisation layers, which stay at each site (Li et al., ICLR 2021, algorithm 1).

What scanners differ in most, the scale and offset of features, is then never mixed between hospitals.
"""

from __future__ import annotations

from typing import final

from flwr.serverapp import strategy as flower
from torch import nn

from fedprivseg.methods.flower_strategy import ANY_NUMBER, FlowerStrategy
from fedprivseg.methods.local import LocalRule, Start
from fedprivseg.methods.rounds import Aggregation, Rounds
from fedprivseg.methods.training import SummableParameters
from fedprivseg.nets.baseline import Weights, norm_names
from fedprivseg.nets.local_training import Correction, NoCorrection


@final
class NormsStayHome(LocalRule):
    """Plain steps; scale, offset and running statistics of every normalisation layer stay."""

    def stays_home(self, net: nn.Module) -> frozenset[str]:
        """All arrays of normalisation layers."""
        return norm_names(net)

    def correction(self, start: Start, net: nn.Module) -> Correction:
        """None."""
        return NoCorrection()

    def sends(self, arrays: Weights) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def finish(self, start: Start, trained: Weights, correction: Correction) -> tuple[Weights, Weights]:
        """Nothing to send, nothing to keep."""
        return {}, {}


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
        return FlowerStrategy(flower.FedAvg(**ANY_NUMBER))

    def local(self) -> LocalRule:
        """Normalisation layers stay home."""
        return NormsStayHome()
