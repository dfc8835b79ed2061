"""The site half of training in rounds: one round of steps, what a method adds to them, and what a site keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, final

import numpy as np

from fedprivseg.core.records import Order
from fedprivseg.methods.aggregation import Update
from fedprivseg.methods.method import Site
from fedprivseg.methods.received_model import require_sound
from fedprivseg.methods.round_state import load_state, save_state
from fedprivseg.methods.training import (
    LocalDP,
    RoundsParameters,
    TrainingParameters,
    augmentation,
    build,
    unpacked,
    weight_of,
)

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights
    from fedprivseg.nets.local_training import Correction, Work
    from fedprivseg.nets.private_training import Mechanism

HOME, RULE, SPENT, NOISE = "home", "rule", "privacy", "privacy-noise"
"""What a site keeps: its personalised parameters, what its rule keeps, the private steps it took, and their noise."""


@dataclass(frozen=True)
class Start:
    """A site at the start of a round.

    Attributes:
        arrays: the weights that it received, by name.
        extra: what it received besides.
        kept: what its rule kept last time.
        work: how it will train.
    """

    arrays: Weights
    extra: Weights
    kept: Weights
    work: Work


@final
@dataclass(frozen=True)
class ClientUpdateRule:
    """What a method does at a site beside plain steps; a rule without parts is plain training.

    Attributes:
        personalised: names of the parameters of a net that never leave a site.
        correction: what is done to the gradient of every step of a round.
        sends: names of what `finish` sends besides, given those of the arrays that travel.
        finish: ``(start, trained, correction) -> (what to send besides, what to keep)`` after the round; both float32, named
            and shaped like arrays of the net.
        tells_received_loss: whether the loss of an update is that of the weights as they came, over the site's training slices
            as they are, and not the mean over the steps.
    """

    personalised: Callable[[nn.Module], frozenset[str]] = lambda net: frozenset()
    correction: Callable[[Start, nn.Module], Correction | None] = lambda start, net: None
    sends: Callable[[Iterable[str]], tuple[str, ...]] = lambda names: ()
    finish: Callable[[Start, Weights, Correction | None], tuple[Weights, Weights]] = lambda start, trained, correction: (
        {},
        {},
    )
    tells_received_loss: bool = False


class Learner(Protocol):
    """A method as its site half sees it."""

    @property
    def parameters(self) -> RoundsParameters:
        """Its hyper-parameters."""

    @property
    def most_change(self) -> float:
        """How far its server moves the weights in a round at most, see `received_model`."""

    def client_update(self) -> ClientUpdateRule:
        """What a site adds to its steps."""

    def work(self, number: int, slices: int) -> Work:
        """How a site with `slices` training slices trains in round `number`."""


def run_round(method: Learner, site: Site, order: Order) -> Update:
    """Train the received weights on this site's slices for one round. The loss of a private training is private: 0."""
    from fedprivseg.nets.baseline import load_weights, weights_of

    p, rule, slices, number = method.parameters, method.client_update(), site.training(), order.number
    received, extra = unpacked(order)
    net = build(p, site)
    load_weights(net, {**load_state(site, HOME, number), **received})
    require_sound(p, site, net, received, number, method.most_change)
    told = _loss_as_received(p, net, site) if rule.tells_received_loss else None
    start = Start(received, extra, load_state(site, RULE, number), method.work(number, len(slices.images)))
    correction = rule.correction(start, net)
    if p.dp is None:
        names, stage = (site.name, "round", number), f"round {number}"
        loss = take_steps(p, site, net, start.work, names, stage, correction)
    else:
        loss = _take_private_steps(method, p.dp, site, net, start.work, number, correction)
    trained = weights_of(net)
    sent, kept = rule.finish(start, trained, correction)
    save_state(site, RULE, number, kept)
    personalised = rule.personalised(net)
    save_state(site, HOME, number, {name: value for name, value in trained.items() if name in personalised})
    counts = {"slices_train": len(slices.images), "subjects_train": len(np.unique(slices.subjects))}
    arrays = {name: trained[name] for name in received}
    return Update(arrays, sent, float(weight_of(p, counts)), start.work.steps, loss if told is None else told)


def trained_history(p: RoundsParameters) -> tuple[str, ...]:
    """What the history of a round says. By the parameters alone: how many slices a site has is not for it to tell."""
    amount = f"{p.local_steps} steps" if p.local_epochs is None else f"{p.local_epochs:g} epochs"
    return (f"trained {amount}",) if p.dp is None else (f"trained {amount}", _promise(p.dp))


def _promise(dp: LocalDP) -> str:
    if dp.epsilon == "inf":
        return f"DP-SGD's steps without noise, which promise nothing to a {dp.unit}"
    return f"DP-SGD, epsilon {dp.epsilon:g} and delta {dp.delta:g} a {dp.unit} over the run"


def received_net(method: Learner, site: Site, order: Order) -> nn.Module:
    """The network as this site uses it: the arrays that `order` brings, and its own where parameters are personalised."""
    from fedprivseg.nets.baseline import load_weights

    assert order.answer is not None, "weights are needed"
    net = build(method.parameters, site)
    load_weights(net, {**load_state(site, HOME, order.answer.shard + 1), **unpacked(order)[0]})
    return net


def spent(method: Learner, site: Site) -> dict[str, np.ndarray]:
    """The site's privacy account over all rounds: epsilon, delta and noise multiplier, float64 of shape (1,) each."""
    from fedprivseg.nets.private_training import epsilon_spent

    p = method.parameters
    assert p.dp is not None, "without differential privacy there is no account"
    steps = load_state(site, SPENT, p.rounds + 1).get("steps", np.zeros(1, np.int64))
    mechanism = mechanism_of(method, p.dp, site)
    epsilon = epsilon_spent(mechanism.noise, p.dp.delta, mechanism.rate, int(steps[0]))
    values = {"epsilon": epsilon, "delta": p.dp.delta, "noise": mechanism.noise}
    return {name: np.array([value]) for name, value in values.items()}


def take_steps(
    parameters: TrainingParameters,
    site: Site,
    net: nn.Module,
    work: Work,
    names: tuple[str | int, ...],
    stage: str,
    correction: Correction | None = None,
) -> float:
    """Train `net` in place on the site's slices, without differential privacy; returns the mean loss.

    Args:
        parameters: the method's; they say how slices are augmented.
        site: whose slices.
        net: starts from the weights that it has.
        work: which steps.
        names: what the order of the slices and the augmentation are drawn from, beside the run's seed.
        stage: what progress is told of.
        correction: what is done to every gradient.
    """
    from fedprivseg.nets.local_training import train_round

    slices = site.training()
    return train_round(
        net,
        slices.images,
        slices.masks,
        work,
        site.seed,
        names,
        augment=augmentation(parameters),
        correction=correction,
        device=site.device,
        progress=lambda _, done, total: site.progress(stage, done, total),
    )


def _loss_as_received(parameters: RoundsParameters, net: nn.Module, site: Site) -> float:
    from fedprivseg.nets.local_training import loss_of

    slices = site.training()
    return loss_of(net, slices.images, slices.masks, parameters.batch, device=site.device, half=parameters.half)


def _take_private_steps(
    method: Learner, dp: LocalDP, site: Site, net: nn.Module, work: Work, number: int, correction: Correction | None
) -> float:
    from fedprivseg.nets.private_training import train_private_round

    slices = site.training()
    train_private_round(
        net,
        slices.images,
        slices.masks,
        slices.subjects,
        work,
        mechanism_of(method, dp, site),
        site.seed,
        (site.name, "round", number),
        augment=augmentation(method.parameters),
        correction=correction,
        device=site.device,
        progress=lambda _, done, total: site.progress(f"round {number}", done, total),
    )
    before = load_state(site, SPENT, number).get("steps", np.zeros(1, np.int64))
    save_state(site, SPENT, number, {"steps": before + work.steps})
    return 0.0


def mechanism_of(method: Learner, dp: LocalDP, site: Site) -> Mechanism:
    """The noise that fits the budget, were this site to take part in every round; none for an infinite one. Found once a run:
    it takes a search."""
    from fedprivseg.nets.private_training import Mechanism, noise_for

    slices = site.training()
    patients = len(np.unique(slices.subjects))
    batch = method.parameters.batch
    rate = min(1.0, batch / len(slices.images) if dp.unit == "slice" else batch / (dp.together * patients))
    if dp.epsilon == "inf":
        return Mechanism(0.0, rate, dp.clip, dp.unit, dp.together)
    if not site.vault.has(NOISE):
        steps = method.parameters.rounds * method.work(1, len(slices.images)).steps
        site.vault.save(NOISE, {"noise": np.array([noise_for(dp.epsilon, dp.delta, rate, steps)])})
    noise = float(site.vault.load(NOISE)["noise"][0])
    return Mechanism(noise, rate, dp.clip, dp.unit, dp.together)
