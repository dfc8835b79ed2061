"""Federated averaging, and what Flower's strategies make of it.

The server's arithmetic is Flower's own (`flwr.serverapp.strategy`). A method that is nothing but a strategy with parameters is
one row of a table. FedProx has a second half that Flower only asks for, the proximal term at the site. Where Flower's strategy
is not what its paper has, the method has a file of its own (`adaptive`, `byzantine`, `qfedavg`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, cast, final

from pydantic import Field

from fedprivseg.methods.aggregation import Aggregation
from fedprivseg.methods.client_update import ClientUpdateRule
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.proximal_term import proximal_term
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.training import RoundsParameters, SummableParameters


class MomentumParameters(SummableParameters):
    """The server's optimiser."""

    server_rate: float = Field(1.0, gt=0, description="learning rate of the server")
    server_momentum: float = Field(0.5, ge=0, lt=1, description="momentum of the server")


class TrimmedParameters(RoundsParameters):
    """beta: see FedTrimmedAvg."""

    beta: float = Field(0.34, ge=0, lt=0.5, description="share of the sites cut off at each end, value by value")


class _Row(NamedTuple):
    """A method: plain steps at the sites, a strategy of Flower's at the server.

    Attributes:
        strategy: its class in `flwr.serverapp.strategy`; in small letters it is the method's name.
        title: of the method.
        paper: where it was published.
        does: what it does, in a sentence.
        parameters_type: the method's parameters.
        arguments: the strategy's arguments, each with the parameter that gives it.
        optimiser: whether the server takes steps of an optimiser, from which running statistics are kept.
    """

    strategy: str
    title: str
    paper: str
    does: str
    parameters_type: type[RoundsParameters]
    arguments: Mapping[str, str]
    optimiser: bool = False

    def method(self) -> type[Rounds]:
        """The method's class."""

        def aggregation(method: Rounds, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
            given = {argument: getattr(method.parameters, parameter) for argument, parameter in self.arguments.items()}
            return flower(self.strategy, statistics if self.optimiser else frozenset(), **given)

        facts = {"title": self.title, "paper": self.paper, "parameters_type": self.parameters_type}
        names = {"name": self.strategy.lower(), "__doc__": self.does, "__module__": __name__}
        return cast("type[Rounds]", type(self.strategy, (Rounds,), {**names, **facts, "aggregation": aggregation}))


_MOMENTUM = MappingProxyType({"server_learning_rate": "server_rate", "server_momentum": "server_momentum"})

# fmt: off
_TABLE = (
    _Row("FedAvg", "Federated averaging", "McMahan et al., AISTATS 2017, algorithm 1",
         "Weighted averaging of the sites' weights.", SummableParameters, {}),
    _Row("FedAvgM", "FedAvg with server momentum", "Hsu et al., arXiv 1909.06335, section 4.3",
         "Averaging with momentum at the server.", MomentumParameters, _MOMENTUM, optimiser=True),
    _Row("FedMedian", "FedMedian", "Yin et al., ICML 2018, definition 1",
         "The median of the sites' weights, value by value: no single site decides.", RoundsParameters, {}),
    _Row("FedTrimmedAvg", "FedTrimmedAvg", "Yin et al., ICML 2018, definition 2",
         "The mean of what is left when the extremes are cut off, value by value.", TrimmedParameters, {"beta": "beta"}),
)
# fmt: on

FedAvg, FedAvgM, FedMedian, FedTrimmedAvg = (row.method() for row in _TABLE)


class FedProxParameters(SummableParameters):
    """mu: see FedProx, equation 2."""

    mu: float = Field(0.01, ge=0, description="weight of the proximal term; 0 is FedAvg")


@final
class FedProx(Rounds):
    """Averaging of sites that are held near the weights they received."""

    name = "fedprox"
    title = "FedProx"
    paper = "Li et al., MLSys 2020, equation 2"
    parameters_type = FedProxParameters
    parameters: FedProxParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedProx, which averages as FedAvg does."""
        return flower("FedProx", proximal_mu=self.parameters.mu)

    def client_update(self) -> ClientUpdateRule:
        """The proximal term, mu/2 * |w - w_received|^2; the norm is squared."""
        mu = self.parameters.mu
        return ClientUpdateRule(correction=lambda start, net: proximal_term(net, mu) if mu else None)
