"""Training in rounds: weights go out, sites train, weights come back, the server aggregates them.

`Rounds` is the program that every method of the federated-averaging family shares. What distinguishes one from another is
composed into it: an `Aggregation` (what the server does with the sites' weights) and a `ClientUpdateRule` (what a site adds to
its steps, sends besides, keeps, and never sends).

Order and arrival mean nothing here: sites are chosen by (seed, round) from their sorted names, updates are aggregated in the
order of the names, and no node id is looked at. (Flower's own loop lets all three decide.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedprivseg.core.errors import QuorumError
from fedprivseg.core.expected import MOST_LOSS, MOST_WEIGHT, Array, Check, Expected
from fedprivseg.core.kinds import MASK_SHARE, MASKED_WEIGHTS, METRIC, STATUS, WEIGHTS, KindSpec
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import CurvePoint, Grid, Order, Payload
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.task import Scope
from fedprivseg.methods.aggregation import Aggregation, Update
from fedprivseg.methods.begin import BEGIN, BEGINS, begin_all
from fedprivseg.methods.client_update import (
    ClientUpdateRule,
    received_net,
    run_round,
    take_steps,
    trained_history,
)
from fedprivseg.methods.effort import UNET_S, Effort, training_s
from fedprivseg.methods.flower_strategy import flower
from fedprivseg.methods.masking import (
    MASKING,
    MASKING_DECLARES,
    check_summation,
    in_fixed_point,
    masked_round,
    mean_of,
    what_colluders_learn,
)
from fedprivseg.methods.method import (
    Action,
    Declaration,
    Federation,
    Method,
    Parameters,
    Site,
    measured_declared,
    trainers,
)
from fedprivseg.methods.privacy_account import SPENT, account, record_central, record_local
from fedprivseg.methods.public_start import PublicStart
from fedprivseg.methods.received_model import MOST_CHANGE
from fedprivseg.methods.secure_aggregation import LARGEST
from fedprivseg.methods.training import (
    EXTRA,
    MODEL,
    NET,
    OPENED,
    RoundsParameters,
    SummableParameters,
    TunableParameters,
    Under,
    build,
    marks,
    mean_dices,
    numbered,
    outline,
    packed,
    planned,
    prefixed,
    public_segmentation,
    segment,
    segment_as_kept,
    travelling,
    under,
    validated,
    validation,
    weight_of,
)

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.baseline import Weights
    from fedprivseg.nets.local_training import Work

NUMBERS = "numbers"
"""The array of a WEIGHTS payload that holds (weight, steps, mean loss)."""

NUMBERS_FORM = Array("float64", (3,), 0)
"""Its form; what is asked of it besides is `numbers_of`."""

STATE = "state/"
"""Prefix of what an aggregation keeps, beside the arrays in ``model.safetensors``."""

EVERYBODY = "everybody"
"""Whose update a masked sum is."""


def train(method: Rounds, site: Site, order: Order) -> Payload:
    """Train the received weights on this site's slices for one round, and send what travels of the result."""
    result = run_round(method, site, order)
    arrays = prefixed(NET, result.arrays) | prefixed(EXTRA, result.extra)
    arrays[NUMBERS] = np.array([result.weight, result.steps, result.loss], np.float64)
    return numbered(WEIGHTS, site, "train", arrays, order.number, trained_history(method.parameters))


def trained(method: Rounds, scope: Scope, order: Order) -> Expected:
    """What `train` sends: the arrays of the network that travel, what the rule adds, and (weight, steps, mean loss)."""
    net, rule = outline(method.parameters, scope), method.client_update()
    forms = travelling(net, rule.personalised(net))
    names = [name.removeprefix(NET) for name in forms]
    forms |= {EXTRA + name: replace(forms[NET + name], least=-MOST_WEIGHT) for name in rule.sends(names)}
    forms[NUMBERS] = NUMBERS_FORM
    return Expected(WEIGHTS, "train", forms, trained_history(method.parameters), check=numbers_of(method))


def validate(method: Rounds, site: Site, order: Order) -> Payload:
    """Score the received net on the site's test slices, for the learning curve."""
    return validation(received_net(method, site, order), site, order.number, method.parameters.half)


def measure(method: Rounds, site: Site, order: Order) -> Payload:
    """Keep the final network at the site, segment the test slices with it and measure them there."""
    from fedprivseg.nets.baseline import weights_of

    net = received_net(method, site, order)
    tune(method.parameters, site, net)
    site.vault.save("final", weights_of(net))
    return site.measure(segment(net, site, site.testing(), method.parameters))


def tune(p: TunableParameters, site: Site, net: nn.Module) -> None:
    """Train the last network on this site's own slices, in place, as far as the parameters ask for it: what comes of it never
    leaves. A site without training slices uses the network as it came."""
    if p.tune_steps and site.labelled:
        work = replace(planned(p, 0, p.tune_steps, p.tune_steps), optimiser="adamw", rate=p.tune_rate)
        take_steps(p, site, net, work, (site.name, "tune"), "fine-tune")


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {**BEGIN, "train": train, "validate": validate, "measure": measure, "account": account}
)
"""What every method of the family asks of its sites."""

DECLARES: Mapping[str, Declaration] = MappingProxyType(
    {**BEGINS, "train": trained, "validate": validated, "measure": measured_declared, "account": SPENT}
)
"""What may answer them."""


def exchange_weights(
    method: Rounds, federation: Federation, number: int, arrays: Weights, extra: Weights, chosen: Sequence[str]
) -> dict[str, Update]:
    """Every chosen site sends its weights, or what `summation` makes of them: then there is one update, of everybody."""
    p = method.parameters
    if isinstance(p, SummableParameters) and p.summation == "secure":
        opened = masked_round(method, federation, number, arrays, chosen, p)
        if number == 1:
            federation.save_model(OPENED, prefixed(NET, opened.arrays), {"sites": str(len(chosen))})
        return {EVERYBODY: opened}
    sent = packed(federation, arrays, extra, number)
    replies = method.ask(federation, "train", number=number, answers=sent, sites=chosen)
    updates = {site: as_update(payload) for site, payload in replies.items()}
    if updates and isinstance(p, SummableParameters) and p.summation == "fixed-point":
        return {EVERYBODY: _summed(updates, arrays)}
    return updates


class Rounds(Method):
    """The family's program. Final subclasses say what they aggregate, if it is not Flower's FedAvg, and what a site adds."""

    parameters_type: ClassVar[type[Parameters]] = RoundsParameters
    parameters: RoundsParameters
    exports = frozenset({WEIGHTS, MASKED_WEIGHTS, MASK_SHARE, METRIC, STATUS})
    actions: ClassVar[Mapping[str, Action]] = {**ACTIONS, **MASKING}
    declares: ClassVar[Mapping[str, Declaration]] = {**DECLARES, **MASKING_DECLARES}

    most_change: ClassVar[float] = MOST_CHANGE
    """How far the aggregate may lie from the weights before, see `received_model`."""

    exchange = exchange_weights
    """How updates of a round come to the server."""

    def aggregation(self, sites: int, statistics: frozenset[str], seed: int) -> Aggregation:
        """What the server does with the sites' weights.

        Args:
            sites: how many there are.
            statistics: the names of the arrays that are no parameters but running statistics of batch norms: no optimiser
                may step on a variance.
            seed: of noise at the server.
        """
        return flower()

    def client_update(self) -> ClientUpdateRule:
        """What a site adds to its steps."""
        return ClientUpdateRule()

    def announced(self, order: Order) -> Mapping[str, np.ndarray] | None:
        """The aggregate, with what the rule adds to it."""
        if order.answer is None or order.answer.kind != WEIGHTS:
            return super().announced(order)
        return {name: value for name, value in order.answer.arrays.items() if name.startswith((NET, EXTRA))}

    @property
    def techniques(self) -> Mapping[KindSpec, tuple[str, ...]]:
        """Updates of a private training carry its noise."""
        dp = self.parameters.dp
        return {} if dp is None or dp.epsilon == "inf" else {WEIGHTS: ("random perturbation",)}

    @property
    def declared(self) -> frozenset[KindSpec]:
        """Masked weights with the shares that open their sum under secure summation, otherwise weights; never both."""
        p = self.parameters
        masked = isinstance(p, SummableParameters) and p.summation == "secure"
        return self.exports - ({WEIGHTS} if masked else {MASKED_WEIGHTS, MASK_SHARE})

    def check_sites(self, sites: int) -> None:
        """A sum in fixed point holds so many sites, and a secure one opens for so many."""
        if isinstance(self.parameters, SummableParameters):
            check_summation(self.parameters, taking_part(self.parameters, sites))

    def effort(self, grid: Grid, slices: int) -> Effort | None:
        """Steps of the U-Net at the sites, by how many of them take part; other nets and DP-SGD were not measured."""
        p = self.parameters
        if p.net != "unet" or p.dp is not None:
            return None
        return Effort(p.fraction * training_s(UNET_S, p.rounds * self.steps(slices), p.batch, grid), 0.0)

    def public_start(self, scope: Scope) -> PublicStart | None:
        """See `Method`."""
        return public_segmentation(self.parameters, scope)

    @property
    def in_rounds(self) -> Rounds:
        """See `Method`."""
        return self

    def conduct(self, federation: Federation) -> dict[str, Payload]:
        """Rounds of broadcast, local training and aggregation; then every site measures with the last net."""
        begin_all(self, federation)
        arrays = self.trained(federation)
        with federation.stage("measure"):
            return self.ask(federation, "measure", answers=packed(federation, arrays, {}, self.parameters.rounds))

    def trained(self, federation: Federation) -> Weights:
        """The network after all rounds, as the server has it: without what is personalised."""
        from fedprivseg.nets.baseline import statistics_names, weights_of

        p = self.parameters
        net = build(p, federation)
        aggregation = self.aggregation(len(trainers(federation)), statistics_names(net), federation.seed)
        personalised = self.client_update().personalised(net)
        done, arrays = 0, {name: value for name, value in weights_of(net).items() if name not in personalised}
        if (kept := federation.load_model(MODEL)) is not None:
            arrays, done = under(kept[0], NET), int(kept[1]["round"])
            aggregation.restore(under(kept[0], STATE))
        with federation.stage("train in rounds"):
            for number in range(done + 1, p.rounds + 1):
                if number > done + 1 and (back := federation.returned()):
                    begin_all(self, federation, back)
                extra = aggregation.broadcast(number, arrays)
                updates: Mapping[str, Update] = {}
                while not updates:
                    # All that were drawn may have left while others are there, who are drawn in their place.
                    if not trainers(federation):
                        raise QuorumError(
                            f"no site with training slices was left in round {number}; sites.<name>.status in accounts.json "
                            "says why"
                        )
                    chosen = chosen_sites(federation, number, p.fraction)
                    updates = self.exchange(federation, number, arrays, extra, chosen)
                arrays = aggregation.aggregate(number, arrays, updates)
                federation.progress("train in rounds", number, p.rounds)
                dices: dict[str, float] = {}
                if number in marks(p):
                    sent = packed(federation, arrays, {}, number)
                    dices = mean_dices(self.ask(federation, "validate", number=number, answers=sent))
                for site in federation.sites:
                    loss = updates[site].loss if site in updates and p.dp is None else None
                    federation.record(CurvePoint(number, site, loss, dices.get(site), federation.sent(site)))
                # Last: a round that was cut short before its points were recorded is done again.
                model = prefixed(NET, arrays) | prefixed(STATE, aggregation.state())
                federation.save_model(MODEL, model, {"round": str(number)})
        self._note_promises(federation, aggregation)
        return arrays

    def predict(self, site: Site, models: ModelStore, images: np.ndarray) -> np.ndarray:
        """Class scores (N, 4, H, W) for slices (N, H, W) float32 in 0..1, with the network that the site kept."""
        return segment_as_kept(site, images, self.parameters)

    def steps(self, slices: int) -> int:
        """How many steps a site with `slices` training slices takes in a round."""
        p = self.parameters
        return p.local_steps if p.local_epochs is None else max(1, round(p.local_epochs * slices / p.batch))

    def work(self, number: int, slices: int) -> Work:
        """How a site with `slices` training slices trains in round `number`, counted from 1."""
        return self.work_of(number, self.steps(slices))

    def work_of(self, number: int, steps: int) -> Work:
        """Round `number` of a site that takes `steps` steps a round."""
        return planned(self.parameters, (number - 1) * steps, steps, self.parameters.rounds * steps)

    def _note_promises(self, federation: Federation, aggregation: Aggregation) -> None:
        """Record what differential privacy was spent, by the sites or by the server, and what is not promised."""
        p = self.parameters
        if p.dp is not None:
            record_local(self, federation, p.dp, p.norm)
        record_central(federation, aggregation)
        if isinstance(p, SummableParameters) and p.summation == "secure":
            said = what_colluders_learn(p, taking_part(p, len(trainers(federation))))
            for site in federation.sites:
                federation.note(site, said)


def chosen_sites(federation: Federation, number: int, fraction: float) -> list[str]:
    """The sites of round `number`: a share of those that train, drawn by (seed, round) from their sorted names."""
    able = trainers(federation)
    count = _share(fraction, len(able))
    draws = numpy_generator(federation.seed, "server", "chosen sites", number)
    places = draws.permutation(len(able))[:count]
    return [able[place] for place in sorted(places)]


def taking_part(parameters: RoundsParameters, sites: int) -> int:
    """How many of `sites` sites take part in a round."""
    return _share(parameters.fraction, sites)


def _share(fraction: float, sites: int) -> int:
    return max(1, round(fraction * sites))


def numbers_of(method: Rounds) -> Check:
    """The check of an update: its weight is what the site's own counts come to, its steps are those that were planned for as
    many slices, its loss is one, and it fits into a fixed-point sum where there is one."""

    def check(payload: Payload, facts: Mapping[str, int]) -> str | None:
        p, (weight, steps, loss) = method.parameters, (float(value) for value in payload.arrays[NUMBERS])
        slices = facts["slices_train"]
        due = weight_of(p, facts)
        planned_steps = method.steps(slices)
        if not due or (weight, steps) != (due, planned_steps):
            return f"it says weight {weight:g} and {steps:g} steps; for its counts these are {due} and {planned_steps}"
        if loss > MOST_LOSS:
            return f"it says a mean loss of {loss:g}; at most {MOST_LOSS:g} can be"
        largest = max(float(np.abs(value).max(initial=0)) for value in payload.arrays.values())
        if isinstance(p, SummableParameters) and p.summation == "fixed-point" and largest * weight >= LARGEST:
            return f"it holds {largest:g} times weight {weight:g}, and from {LARGEST:g} on nothing is summed in fixed point"
        return None

    return check


def as_update(payload: Payload) -> Update:
    """What a site's WEIGHTS payload says."""
    weight, steps, loss = (float(value) for value in payload.arrays[NUMBERS])
    return Update(Under(payload.arrays, NET), Under(payload.arrays, EXTRA), weight, int(steps), loss)


def _summed(updates: Mapping[str, Update], arrays: Weights) -> Update:
    """The mean of updates by the arithmetic of secure aggregation, which needs no masks to be exact."""
    return mean_of(sum(map(in_fixed_point, updates.values()), np.zeros(1, np.uint64)), arrays)
