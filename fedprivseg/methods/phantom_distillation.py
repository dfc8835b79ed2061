"""Phantom distillation: sites send what their networks answer on public phantoms, and nothing that is made slice by slice of
their patients.

Every round the server sends its network, each site trains it on its own slices, and answers the same public phantom slices with
it. The server teaches its network the mean of these answers. What leaves is a function of a whole site's training: no code, no
image, no weight. Under ``dp`` the site's training is DP-SGD, and its answers are as private as its weights would be.

Federated distillation on public data is Li and Wang, FedMD, arXiv 1910.03581, 2019, and Lin et al., NeurIPS 2020; that the
public data are phantoms, so that nobody has to publish a patient, is this package's. It pays with the gap between phantom and
patient: what a site learned of real images shows on phantoms only in part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from pydantic import Field

from fedprivseg.core.expected import Array, Check, Expected
from fedprivseg.core.kinds import METRIC, PUBLIC_ANSWERS, STATUS
from fedprivseg.core.records import Order, Payload, Slices
from fedprivseg.core.task import Scope
from fedprivseg.methods.aggregation import Update
from fedprivseg.methods.client_update import run_round, trained_history
from fedprivseg.methods.method import Action, Declaration, Federation, Place, Progress, Site
from fedprivseg.methods.public_start import PublicStart
from fedprivseg.methods.rounds import ACTIONS, DECLARES, EVERYBODY, NUMBERS, NUMBERS_FORM, Rounds, numbers_of
from fedprivseg.methods.training import RoundsParameters, build, numbered, packed, public_segmentation, weight_of

if TYPE_CHECKING:
    from fedprivseg.nets.baseline import Weights

PUBLIC = "public"
"""The array of a public start that holds the slices which every site answers: (n, H, W) uint8."""

_ANSWERS = "answers"


class DistillationParameters(RoundsParameters):
    """As for federated averaging, and how the server learns from the answers."""

    start: Any = Field("phantom", description="phantom: the public slices are of it")
    rounds: int = Field(4, ge=1, description="how often sites train and answer")
    local_steps: int = Field(60, ge=1, description="optimiser steps of a site in a round")
    public_slices: int = Field(256, ge=2, description="public slices that every site answers")
    distil_steps: int = Field(150, ge=1, description="optimiser steps of the server in a round")
    distil_rate: float = Field(1e-3, gt=0, description="its largest learning rate")


def teach(method: PhantomDistillation, site: Site, order: Order) -> Payload:
    """Train the received network on this site's slices, and send what it answers on the public ones."""
    from fedprivseg.nets.baseline import load_weights
    from fedprivseg.nets.fitting import scores

    result = run_round(method, site, order)
    net = build(method.parameters, site)
    load_weights(net, result.arrays)
    found = scores(net, _public(site)[:, None], site.device, method.parameters.half)[:, 1:]
    arrays = {
        _ANSWERS: np.rint(found * 255).astype(np.uint8),
        NUMBERS: np.array([result.weight, result.steps, result.loss], np.float64),
    }
    return numbered(PUBLIC_ANSWERS, site, "train", arrays, order.number, _history(method))


def taught(method: PhantomDistillation, scope: Scope, order: Order) -> Expected:
    """What `teach` sends."""
    p = method.parameters
    form = Array("uint8", (p.public_slices, len(scope.task.structures), scope.grid.height, scope.grid.width), 0, 255)
    numbers: Check = numbers_of(method)
    return Expected(PUBLIC_ANSWERS, "train", {_ANSWERS: form, NUMBERS: NUMBERS_FORM}, _history(method), check=numbers)


def _history(method: PhantomDistillation) -> tuple[str, ...]:
    return (*trained_history(method.parameters), "answers on public phantoms", "8 bits")


@final
class PhantomDistillation(Rounds):
    """Sites teach the server by what they answer on public phantoms."""

    name = "phantom-distillation"
    title = "Phantom distillation"
    paper = "after Li and Wang, FedMD, arXiv 1910.03581, and Lin et al., NeurIPS 2020; on phantoms: this package"
    exports = frozenset({PUBLIC_ANSWERS, METRIC, STATUS})
    parameters_type = DistillationParameters
    parameters: DistillationParameters
    actions: ClassVar[Mapping[str, Action]] = {
        **{name: action for name, action in ACTIONS.items() if name != "train"},
        "teach": teach,
    }
    declares: ClassVar[Mapping[str, Declaration]] = {
        **{name: declared for name, declared in DECLARES.items() if name != "train"},
        "teach": taught,
    }

    def public_start(self, scope: Scope) -> PublicStart | None:
        """That of the network, with the public slices that every site answers, spread evenly over the crowd."""
        net = public_segmentation(self.parameters, scope)
        assert net is not None, "its parameters ask for a public start"

        def fit(slices: Slices, device: str, progress: Progress) -> dict[str, np.ndarray]:
            count = self.parameters.public_slices
            chosen = np.linspace(0, len(slices.images) - 1, count).round().astype(int)
            return net.fit(slices, device, progress) | {PUBLIC: np.rint(slices.images[chosen] * 255).astype(np.uint8)}

        return replace(net, recipe={**net.recipe, "public slices": self.parameters.public_slices}, fit=fit)

    def exchange(
        self, federation: Federation, number: int, arrays: Weights, extra: Weights, chosen: Sequence[str]
    ) -> dict[str, Update]:
        """Every chosen site trains and answers; the network that has learned from all answers is everybody's update."""
        from fedprivseg.nets.baseline import load_weights, weights_of
        from fedprivseg.nets.descent import Schedule
        from fedprivseg.nets.pretraining import distil

        p = self.parameters
        sent = packed(federation, arrays, extra, number)
        replies = self.ask(federation, "teach", number=number, answers=sent, sites=chosen)
        if not replies:
            return {}
        weights = {site: float(weight_of(p, federation.facts(site))) for site in replies}
        total = sum(weights.values())
        mean = sum(
            weights[site] / total * (reply.arrays[_ANSWERS].astype(np.float32) / 255) for site, reply in replies.items()
        )
        net = build(p, federation)
        load_weights(net, arrays)
        distil(
            net,
            _public(federation),
            np.asarray(mean),
            Schedule(p.distil_steps, p.batch, p.distil_rate, half=p.half),
            federation.seed,
            ("server", "distil", number),
            device=federation.device,
            progress=lambda _, done, steps: federation.progress("learn from the answers", done, steps),
        )
        loss = sum(weights[site] / total * float(reply.arrays[NUMBERS][2]) for site, reply in replies.items())
        return {EVERYBODY: Update(weights_of(net), {}, total, p.distil_steps, loss)}


def _public(where: Place) -> np.ndarray:
    """The public slices, (n, H, W) float32 in 0..1."""
    return where.start()[PUBLIC].astype(np.float32) / 255
