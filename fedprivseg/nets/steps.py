"""Optimiser steps in torch's functional form.

The arithmetic is torch's own, bit for bit (a test holds it against `torch.optim`). Its optimiser classes load torch's compiler
on first use, 2.7 s and 100 MB in every site's process, for code that is never compiled; its functions do not.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


@final
class Steps:
    """Steps over all parameters of a net: SGD with Nesterov momentum (none at momentum 0), or AdamW with torch's betas.

    net: on the device on which it stays. decay: weight decay. momentum: of sgd only.
    """

    def __init__(
        self, net: nn.Module, optimiser: Literal["sgd", "adamw"], momentum: float = 0.9, decay: float = 0.0
    ) -> None:
        self._weights = list(net.parameters())
        self._optimiser, self._momentum, self._decay = optimiser, momentum, decay
        self._first: dict[int, torch.Tensor | None] = {}
        self._second: dict[int, torch.Tensor] = {}
        self._counts: dict[int, torch.Tensor] = {}

    def clear(self) -> None:
        """Forget the gradients."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def take(self, rate: float) -> None:
        """One step along the present gradients; parameters without one stay as they are."""
        places = [place for place, weight in enumerate(self._weights) if weight.grad is not None]
        weights = [self._weights[place] for place in places]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if self._optimiser == "sgd":
            buffers = [self._first.get(place) for place in places]
            sgd(
                weights,  # type: ignore[arg-type]
                gradients,
                buffers,
                weight_decay=self._decay,
                momentum=self._momentum,
                lr=rate,
                dampening=0.0,
                nesterov=self._momentum > 0,
                maximize=False,
            )
            self._first.update(zip(places, buffers, strict=True))
            return
        for place, weight in zip(places, weights, strict=True):
            if place not in self._second:
                self._first[place], self._second[place] = torch.zeros_like(weight), torch.zeros_like(weight)
                self._counts[place] = torch.zeros(())
        adamw(
            weights,  # type: ignore[arg-type]
            gradients,
            [self._first[place] for place in places],  # type: ignore[misc]
            [self._second[place] for place in places],
            [],
            [self._counts[place] for place in places],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=self._decay,
            eps=1e-8,
            maximize=False,
        )
