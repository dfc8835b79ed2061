"""Inversion of running statistics: the batch's own, exactly; none where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.attacks.base import Effort, UpdateView
from fedprivseg.attacks.metrics import Truth, evaluate
from fedprivseg.attacks.statistics_inversion import StatisticsInversion, batch_statistics
from fedprivseg.core.compute import threads
from fedprivseg.nets.baseline import build_net, load_weights, weights_of
from fedprivseg.nets.local_training import Work, train_round

SIDE = 32


@pytest.fixture(scope="module")
def slices():
    return blocks(60, SIDE)


def _trained(net, images, masks, work):
    before = weights_of(net)
    train_round(net, images, masks, work, 0, ("x",))
    update = {name: before[name] - after for name, after in weights_of(net).items()}
    load_weights(net, before)
    return update


def test_after_one_step_they_are_the_batchs_own(slices):
    net = build_net("unet", "batch", SIDE, 3, 0, "x")
    update = _trained(net, slices.images[:3], slices.masks[:3], Work(0, 1, 1, batch=3, half=False))
    mean, variance = batch_statistics(net, update, 1)["stem.1"]
    # The first norm sees the first convolution of the images, whose weights are still those before the step.
    with torch.no_grad():
        seen = net.stem[0](torch.from_numpy(slices.images[:3, None])).double()
    np.testing.assert_allclose(mean, seen.mean(dim=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(variance, seen.var(dim=(0, 2, 3), unbiased=True), atol=1e-5)


def test_after_several_steps_they_are_weighted_towards_the_last(slices):
    net = build_net("unet", "batch", SIDE, 3, 0, "x")
    work = Work(0, 2, 2, batch=1, rate=0.0, decay=0.0, half=False)  # no step changes a weight
    update = _trained(net, slices.images[:2], slices.masks[:2], work)
    mean, _ = batch_statistics(net, update, 2)["stem.1"]
    with torch.no_grad():
        each = [net.stem[0](torch.from_numpy(slices.images[i : i + 1, None])).mean(dim=(0, 2, 3)) for i in (0, 1)]
    # Each slice is drawn once. Weights 0.1 * 0.9 and 0.1 over 1 - 0.81: 9/19 for the first step, 10/19 for the last.
    orders = [(9 * each[a] + 10 * each[b]) / 19 for a, b in ((0, 1), (1, 0))]
    assert min(float((torch.from_numpy(mean) - order).abs().max()) for order in orders) < 1e-5


def _view(slices, net, **changes):
    work = Work(0, 1, 1, batch=1, half=False)

    def rehearse(images):
        return _trained(net, images, slices.masks[:1], work)

    fields = {
        "update": rehearse(slices.images[:1]),
        "masks": slices.masks[:1],
        "slices": (0,),
        "setting": "",
        "build": lambda: net,
        "rehearse": rehearse,
        "auxiliary": slices.images[4:],
        "effort": Effort(60, 0),
        "seed": lambda *_: 0,
        "work": work,
    }
    return UpdateView(**fields | changes)


def test_the_statistics_of_one_slice_explain_much_of_it(slices):
    with threads(1):
        found = StatisticsInversion().carry_out(_view(slices, build_net("unet", "batch", SIDE, 3, 0, "x")))
    truth = Truth(slices.images[:1, None], slices.subjects[:1], slices.masks[:1], "images", "heart")
    metrics = {each.metric: each.leakage for each in evaluate(found, truth, slices.images[4:, None])}
    assert metrics["squared error"] > 0.2, metrics


@pytest.mark.parametrize(("name", "norm"), [("unet", "group"), ("nnunet", "group"), ("nnunet", "batch")])
def test_where_no_statistics_leave_it_says_so(slices, name, norm):
    view = _view(slices, build_net(name, norm, SIDE, 3, 0, "x"))
    assert "no running statistics leave" in StatisticsInversion().lacks(view)
