"""Gradient inversion: on a network whose gradient holds its input it finds the input, on a random update nothing."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from fakes import blocks
from torch import nn

from fedprivseg.attacks.base import ONE_STEP, Effort, UpdateView
from fedprivseg.attacks.control_nets import control_net
from fedprivseg.attacks.gradient_inversion import GradientInversion, soft_signs
from fedprivseg.attacks.metrics import Truth, evaluate
from fedprivseg.core.compute import threads
from fedprivseg.core.seeds import building, numpy_generator
from fedprivseg.nets.baseline import build_net, weights_of
from fedprivseg.nets.local_training import Work, supervised_loss, train_round

SIDE = 32


@pytest.fixture(scope="module")
def slices():
    return blocks(9, SIDE)


def _flat():
    """The gradient of a dense layer on an image is a multiple of that image."""
    with building(0, "flat"):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE * SIDE, 3 * 16), nn.Unflatten(1, (3, 4, 4)), nn.Upsample(scale_factor=8)
        )


def _leak(slices, build, update, work=ONE_STEP):
    view = UpdateView(
        update,
        slices.masks[:1],
        (0,),
        "",
        build,
        lambda _: {},
        slices.images[4:],
        Effort(0, 400),
        lambda *_: 0,
        work=work,
    )
    with threads(1):
        found = GradientInversion().carry_out(view)
    truth = Truth(slices.images[:1, None], slices.subjects[:1], slices.masks[:1], "images", "heart")
    metrics = evaluate(found, truth, slices.images[4:, None])
    return next(each.leakage for each in metrics if each.metric == "squared error")


def _gradient(build, images, masks):
    net = build().train()
    supervised_loss(net(torch.from_numpy(images[:, None])), torch.from_numpy(masks)).backward()
    return {name: weight.grad.numpy() for name, weight in net.named_parameters()}


def test_a_gradient_that_holds_the_image_gives_it_away(slices):
    towards = _gradient(_flat, slices.images[:1], slices.masks[:1])
    assert _leak(slices, _flat, towards) > 0.8


def test_a_step_of_adamw_shows_signs_and_gives_the_image_away(slices, monkeypatch):
    """A search that takes signs for a gradient finds hardly anything. Weight decay, which the adversary knows, is taken off:
    here it moves weights by some hundredths of the step."""
    build = partial(control_net, "small net with batch norm", SIDE, SIDE, 3, 0)
    net = build()
    before = weights_of(net)
    work = Work(0, 1, 1, batch=1, optimiser="adamw", rate=1e-3, decay=3.0, half=False)
    train_round(net, slices.images[:1], slices.masks[:1], work, 0, ("x",))
    update = {name: before[name] - value for name, value in weights_of(net).items()}
    followed = _leak(slices, build, update, work)
    monkeypatch.setattr("fedprivseg.attacks.gradient_inversion.soft_signs", lambda gradient: gradient)
    assert followed > 0.3
    assert _leak(slices, build, update, work) < followed - 0.2


def test_soft_signs_are_signs_of_what_is_large_and_nothing_of_what_is_zero():
    signs = soft_signs(torch.tensor([-1000.0, 0.0, 1e-6, 1000.0]))
    # The mean of |g| is about 500, of which 0.3 are added to each: 1000 / 1150.
    assert signs.tolist() == pytest.approx([-1000 / 1150, 0.0, 1e-6 / 150, 1000 / 1150])
    assert soft_signs(torch.zeros(3)).tolist() == [0, 0, 0]


def test_a_random_update_gives_nothing(slices):
    draws = numpy_generator(0, "update")
    towards = {
        name: draws.standard_normal(weight.shape).astype(np.float32) for name, weight in _flat().named_parameters()
    }
    assert _leak(slices, _flat, towards) < 0.05


def test_a_real_step_of_a_unet_is_its_gradient_and_leaks(slices):
    def build():
        return build_net("unet", "batch", SIDE, 3, 0, "x")

    net = build()
    before = weights_of(net)
    work = Work(0, 1, 1, batch=2, rate=0.1, clip=1e9, decay=0.0, half=False)
    train_round(net, slices.images[:2], slices.masks[:2], work, 0, ("x",))
    towards = {name: before[name] - value for name, value in weights_of(net).items()}
    for name, gradient in _gradient(build, slices.images[:2], slices.masks[:2]).items():
        # The first step of Nesterov's momentum 0.9 at rate 0.1 goes 0.19 times the gradient (Sutskever et al. 2013).
        np.testing.assert_allclose(towards[name], 0.19 * gradient, rtol=1e-2, atol=1e-5)
