"""Federated averaging and what Flower's strategies make of it: one short class each, all of them `Rounds`.

The server's arithmetic is Flower's own (`flwr.serverapp.strategy`). FedProx has a second half that Flower only asks for, the
proximal term at the site; it is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pydantic import Field

from fedprivseg.methods.client_update import LocalRule
from fedprivseg.methods.flower_strategy import ANY_NUMBER, FlowerStrategy
from fedprivseg.methods.rounds import Aggregation, Rounds
from fedprivseg.methods.training import RoundsParameters, SummableParameters
from fedprivseg.nets.correction import Correction

if TYPE_CHECKING:
    from torch import nn


@final
class FedAvg(Rounds):
    """Weighted averaging of the sites' weights."""

    name = "fedavg"
    title = "Federated averaging"
    paper = "McMahan et al., AISTATS 2017, algorithm 1"
    parameters_type = SummableParameters
    parameters: SummableParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedAvg."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.FedAvg(**ANY_NUMBER))

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


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
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.FedProx(proximal_mu=self.parameters.mu, **ANY_NUMBER))

    def local(self) -> LocalRule:
        """The proximal term, mu/2 * |w - w_received|^2; the norm is squared."""
        mu = self.parameters.mu
        return LocalRule(correction=lambda start, net: ProximalTerm(net, mu)) if mu else LocalRule()


@final
class ProximalTerm(Correction):
    """Adds strength * (w - w_start), the gradient of strength/2 * |w - w_start|^2, to every gradient.

    w_start: the parameters of `net` when this is made.
    """

    def __init__(self, net: nn.Module, strength: float) -> None:
        self.strength = strength
        self.start = [parameter.detach().clone() for parameter in net.parameters()]

    def apply(self, net: nn.Module) -> None:
        """Add the term."""
        import torch

        with torch.no_grad():
            for parameter, start in zip(net.parameters(), self.start, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start.to(parameter.device), alpha=self.strength)


class FedAvgMParameters(SummableParameters):
    """The server's optimiser."""

    server_rate: float = Field(1.0, gt=0, description="learning rate of the server")
    server_momentum: float = Field(0.5, ge=0, lt=1, description="momentum of the server")


@final
class FedAvgM(Rounds):
    """Averaging with momentum at the server."""

    name = "fedavgm"
    title = "FedAvg with server momentum"
    paper = "Hsu et al., arXiv 1909.06335, section 4.3"
    parameters_type = FedAvgMParameters
    parameters: FedAvgMParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedAvgM."""
        from flwr.serverapp import strategy as flower

        p = self.parameters
        strategy = flower.FedAvgM(server_learning_rate=p.server_rate, server_momentum=p.server_momentum, **ANY_NUMBER)
        return FlowerStrategy(strategy, statistics)

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


class AdaptiveParameters(SummableParameters):
    """The server's adaptive optimiser (Reddi et al. 2021, algorithm 2)."""

    server_rate: float = Field(0.01, gt=0, description="learning rate of the server, eta")
    beta_1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment; FedAdagrad has none")
    beta_2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment; FedAdagrad sums instead")
    tau: float = Field(1e-3, gt=0, description="adaptivity: smallest root of a second moment")


@final
class FedAdam(Rounds):
    """Averaged updates as gradients of a server that runs Adam."""

    name = "fedadam"
    title = "FedAdam"
    paper = "Reddi et al., ICLR 2021, algorithm 2"
    parameters_type = AdaptiveParameters
    parameters: AdaptiveParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedAdam."""
        from flwr.serverapp import strategy as flower

        p = self.parameters
        strategy = flower.FedAdam(eta=p.server_rate, beta_1=p.beta_1, beta_2=p.beta_2, tau=p.tau, **ANY_NUMBER)
        return FlowerStrategy(strategy, statistics)

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


@final
class FedYogi(Rounds):
    """Averaged updates as gradients of a server that runs Yogi."""

    name = "fedyogi"
    title = "FedYogi"
    paper = "Reddi et al., ICLR 2021, algorithm 2"
    parameters_type = AdaptiveParameters
    parameters: AdaptiveParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedYogi."""
        from flwr.serverapp import strategy as flower

        p = self.parameters
        strategy = flower.FedYogi(eta=p.server_rate, beta_1=p.beta_1, beta_2=p.beta_2, tau=p.tau, **ANY_NUMBER)
        return FlowerStrategy(strategy, statistics)

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


@final
class FedAdagrad(Rounds):
    """Averaged updates as gradients of a server that runs Adagrad."""

    name = "fedadagrad"
    title = "FedAdagrad"
    paper = "Reddi et al., ICLR 2021, algorithm 2"
    parameters_type = AdaptiveParameters
    parameters: AdaptiveParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedAdagrad."""
        from flwr.serverapp import strategy as flower

        p = self.parameters
        return FlowerStrategy(flower.FedAdagrad(eta=p.server_rate, tau=p.tau, **ANY_NUMBER), statistics)

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


@final
class FedMedian(Rounds):
    """The median of the sites' weights, value by value: no single site decides."""

    name = "fedmedian"
    title = "FedMedian"
    paper = "Yin et al., ICML 2018, definition 1"

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedMedian."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.FedMedian(**ANY_NUMBER))

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


class TrimmedParameters(RoundsParameters):
    """beta: see FedTrimmedAvg."""

    beta: float = Field(0.34, ge=0, lt=0.5, description="share of the sites cut off at each end, value by value")


@final
class FedTrimmedAvg(Rounds):
    """The mean of what is left when the extremes are cut off, value by value."""

    name = "fedtrimmedavg"
    title = "FedTrimmedAvg"
    paper = "Yin et al., ICML 2018, definition 2"
    parameters_type = TrimmedParameters
    parameters: TrimmedParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's FedTrimmedAvg."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.FedTrimmedAvg(beta=self.parameters.beta, **ANY_NUMBER))

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


class ByzantineParameters(RoundsParameters):
    """malicious: see Krum and Bulyan."""

    malicious: int = Field(0, ge=0, description="how many sites may be malicious")


@final
class Krum(Rounds):
    """The weights of the one site that lies nearest to the others."""

    name = "krum"
    title = "Krum"
    paper = "Blanchard et al., NeurIPS 2017, section 4"
    parameters_type = ByzantineParameters
    parameters: ByzantineParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's Krum."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.Krum(num_malicious_nodes=self.parameters.malicious, **ANY_NUMBER))

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


@final
class Bulyan(Rounds):
    """Krum, repeated, then a trimmed mean; it asks for at least 4 * malicious + 3 sites."""

    name = "bulyan"
    title = "Bulyan"
    paper = "El Mhamdi et al., ICML 2018, section 4"
    parameters_type = ByzantineParameters
    parameters: ByzantineParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's Bulyan."""
        from flwr.serverapp import strategy as flower

        return FlowerStrategy(flower.Bulyan(num_malicious_nodes=self.parameters.malicious, **ANY_NUMBER))

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()


class QFedAvgParameters(RoundsParameters):
    """q: see q-FedAvg."""

    q: float = Field(
        0.1, ge=0, description="how much a site with a larger loss counts; 0 is averaging with equal weights"
    )


@final
class QFedAvg(Rounds):
    """Averaging that favours the sites with the largest loss, for a fairer spread."""

    name = "qfedavg"
    title = "q-FedAvg"
    paper = "Li et al., ICLR 2020, algorithm 2"
    parameters_type = QFedAvgParameters
    parameters: QFedAvgParameters

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """Flower's QFedAvg; the local rate stands for the inverse of the Lipschitz constant, as the paper proposes."""
        from flwr.serverapp import strategy as flower

        p = self.parameters
        return FlowerStrategy(flower.QFedAvg(client_learning_rate=p.rate, q=p.q, **ANY_NUMBER), statistics)

    def local(self) -> LocalRule:
        """Plain steps."""
        return LocalRule()
