"""What holds a site's weights near those it received, in FedProx and Ditto."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from fedprivseg.nets.local_training import Correction


def proximal_term(net: nn.Module, strength: float) -> Correction:
    """Adds strength * (w - w_start), the gradient of strength/2 * |w - w_start|^2, to every gradient; the norm is squared.

    Args:
        net: its parameters are w_start as they are now.
        strength: mu of FedProx, lambda of Ditto.
    """
    import torch

    starts = [parameter.detach().clone() for parameter in net.parameters()]

    def correct(net: nn.Module) -> None:
        with torch.no_grad():
            for parameter, start in zip(net.parameters(), starts, strict=True):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start.to(parameter.device), alpha=strength)

    return correct
