"""Steps: torch's functional optimisers, held against its classes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from fedprivseg.nets.steps import Steps


def _nets():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2), nn.Linear(2, 2))
    two = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2), nn.Linear(2, 2))
    two.load_state_dict(one.state_dict())
    return one, two


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_bit_equal_to_torchs_classes_over_changing_rates_and_missing_gradients(optimiser, momentum):
    with torch.random.fork_rng():
        own, torchs = _nets()
        steps = Steps(own, optimiser, momentum, 1e-2)
        if optimiser == "adamw":
            oracle = torch.optim.AdamW(torchs.parameters(), lr=1, weight_decay=1e-2)
        else:
            oracle = torch.optim.SGD(
                torchs.parameters(), lr=1, momentum=momentum, nesterov=momentum > 0, weight_decay=1e-2
            )
        for step in range(7):
            rate = 0.1 / (step + 1)
            batch = torch.randn(4, 5)
            upto = 3 if step in (0, 3) else 4  # the last layer has no gradient in some steps
            steps.clear()
            own[:upto](batch).square().sum().backward()
            steps.take(rate)
            oracle.zero_grad(set_to_none=True)
            torchs[:upto](batch).square().sum().backward()
            oracle.param_groups[0]["lr"] = rate
            oracle.step()
    for mine, theirs in zip(own.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_round_of_training_does_not_load_the_compiler():
    program = """
import sys, numpy as np, torch
from fedprivseg.nets.baseline import build_net
from fedprivseg.nets.local_training import Work, train_round
net = build_net("unet", "batch", 32, 3, 0, "x")
train_round(net, np.zeros((4, 32, 32), np.float32), np.zeros((4, 32, 32), np.uint8), Work(0, 1, 1, 2), 0, ("x",))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
