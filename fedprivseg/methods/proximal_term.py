"""What holds a site's weights near those it received, in FedProx and Ditto."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from fedprivseg.nets.correction import Correction

if TYPE_CHECKING:
    from torch import nn


@final
class ProximalTerm(Correction):
    """Adds strength * (w - w_start), the gradient of strength/2 * |w - w_start|^2, to every gradient; the norm is squared.

    Args:
        net: its parameters are w_start as they are now.
        strength: mu of FedProx, lambda of Ditto.
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
