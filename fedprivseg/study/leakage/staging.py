"""Updates that are made for an attack: what a site would show if it trained for a few steps on a few slices.

Plain ones show under which circumstances an attack works at all. Those under the run's own defence show what it buys, where
the attack is at its best; they are no control, for there an attack should fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

import numpy as np
from torch import nn

from fedprivseg.attacks.crafted_weights import silenced
from fedprivseg.core.seeds import derive, numpy_generator
from fedprivseg.methods.aggregation import Update
from fedprivseg.methods.client_update import mechanism_of
from fedprivseg.methods.masking import in_fixed_point, mean_of
from fedprivseg.methods.rounds import Rounds
from fedprivseg.methods.secure_aggregation import SECRET_BYTES, mask
from fedprivseg.methods.training import SummableParameters, augmentation, build, planned
from fedprivseg.nets.baseline import Weights, load_weights, statistics_names, weights_of
from fedprivseg.nets.local_training import Work, pass_batch, train_round
from fedprivseg.nets.private_training import train_private_round
from fedprivseg.runtime.site.site_runtime import SiteRuntime

Pair = tuple[np.ndarray, np.ndarray]
"""Images (B, H, W) float32 and masks (B, H, W) uint8."""


@final
class Stage:
    """A site before its first round.

    Args:
        method: how it trains.
        site: whose slices.
        made: makes another network than the method's own.

    Attributes:
        build: makes the network with the weights before.
        before: these weights, from which every update begins.
        net: a network of that kind, which is trained again and again.
    """

    def __init__(self, method: Rounds, site: SiteRuntime, made: Callable[[], nn.Module] | None = None) -> None:
        self.method, self.site = method, site
        self.build = made or (lambda: build(method.parameters, site))
        self.net = self.build()
        self.before: Weights = weights_of(self.net)

    def update(self, slices: Pair, work: Work | None = None) -> dict[str, np.ndarray]:
        """Weights before minus after the steps of `work` on `slices`, without augmentation or noise. None: one step on all."""
        load_weights(self.net, self.before)
        work = work or self.work(len(slices[0]), 1)
        train_round(self.net, *slices, work, self.site.seed, ("staged",), device=self.site.device)
        return self._change(weights_of(self.net))

    def statistics(self, slices: Pair, work: Work) -> dict[str, np.ndarray]:
        """The running statistics of `update`, which the last step has set before its gradient is known."""
        load_weights(self.net, self.before)
        step = work.steps - 1
        if step:
            train_round(
                self.net, *slices, replace(work, steps=step), self.site.seed, ("staged",), device=self.site.device
            )
        pass_batch(self.net, slices[0], work, step, self.site.seed, ("staged",), device=self.site.device)
        named = statistics_names(self.net)
        return self._change({name: value for name, value in weights_of(self.net).items() if name in named})

    def round(self, pool: Pair, seed: int) -> dict[str, np.ndarray]:
        """Weights before minus after the first round of a site that has the slices `pool`, as sites train: with augmentation,
        in an order of their own, drawn from `seed`."""
        load_weights(self.net, self.before)
        train_round(
            self.net,
            *pool,
            self.method.work(1, len(pool[0])),
            seed,
            ("rehearsed round",),
            augment=augmentation(self.method.parameters),
            device=self.site.device,
        )
        return self._change(weights_of(self.net))

    def defended(self, slices: Pair, peers: list[Pair], seed: int) -> dict[str, Weights]:
        """The update of one step as the run's defences let it out, by what they do to it; empty for a run without.

        DP-SGD is given these slices alone, so that all the others of the batch can be thought known to the adversary.

        Args:
            slices: the site's own.
            peers: as many of each other site, which is on the same step.
            seed: of noise and masks, which no attack is given.
        """
        p = self.method.parameters
        found: dict[str, Weights] = {}
        if p.dp is not None:
            found["under DP-SGD"] = self._private(slices, seed)
        if isinstance(p, SummableParameters) and p.summation == "secure":
            sent = [in_fixed_point(self._trained(each)) for each in (slices, *peers)]
            # Fixed point counts modulo 2 ** 64.
            total = np.stack(sent).sum(axis=0, dtype=np.uint64)
            found[f"in the sum of {len(sent)} sites"] = self._change(mean_of(total, self.before).arrays)
            draws = numpy_generator(seed, "masks")
            masked = mask(sent[0], draws.bytes(SECRET_BYTES), [(draws.bytes(SECRET_BYTES), True) for _ in peers])
            found["masked"] = self._change(mean_of(masked, self.before).arrays)
        return found

    def singled_out(self, slices: Pair, peers: list[Pair], pictures: Pair) -> Weights:
        """The update of one site, as an active server reads it in the exact sum of all: the others were sent weights whose
        update it can work out by itself, and subtracts.

        Args:
            slices: the attacked site's own.
            peers: as many of each other site.
            pictures: as many of the server's own, to work out the others' updates with.
        """
        others = Stage(self.method, self.site, lambda: silenced(self.build()))
        sent = [in_fixed_point(self._trained(slices)), *(in_fixed_point(others._trained(each)) for each in peers)]
        mean = mean_of(np.stack(sent).sum(axis=0, dtype=np.uint64), self.before).arrays
        guessed = others._trained(pictures).arrays
        return self._change({name: len(sent) * mean[name] - len(peers) * guessed[name] for name in mean})

    def _private(self, slices: Pair, seed: int) -> Weights:
        dp = self.method.parameters.dp
        assert dp is not None, "asked for under differential privacy only"
        net = self.build()
        train_private_round(
            net,
            *slices,
            np.arange(len(slices[0])),
            self.work(len(slices[0]), 1),
            replace(mechanism_of(self.method, dp, self.site), rate=1.0),
            derive(seed, "noise"),
            ("staged",),
            device=self.site.device,
        )
        return self._change(weights_of(net))

    def _trained(self, slices: Pair) -> Update:
        change = self.update(slices)
        after = {name: value - change[name] for name, value in self.before.items()}
        return Update(after, {}, float(len(slices[0])), 1, 0.0)

    def work(self, batch: int, steps: int) -> Work:
        """So many steps of so many slices, at the rate of the run's first step."""
        total = self.method.parameters.rounds * steps
        return replace(planned(self.method.parameters, 0, steps, total), batch=batch, half=False)

    def _change(self, after: Weights) -> dict[str, np.ndarray]:
        return {name: value - after[name] for name, value in self.before.items() if name in after}
