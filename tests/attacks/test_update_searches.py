"""Searches for images behind updates: each control network gives its image away; several steps and crafted rows do, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.attacks.base import Effort, UpdateView
from fedprivseg.attacks.closed_form_inversion import ClosedFormInversion
from fedprivseg.attacks.control_nets import CONTROL_NETS, PLAIN, control_net
from fedprivseg.attacks.crafted_weights import imprinted
from fedprivseg.attacks.gradient_inversion import GradientInversion
from fedprivseg.attacks.metrics import Truth, evaluate
from fedprivseg.attacks.multi_step_inversion import MultiStepInversion, simulated
from fedprivseg.core.compute import threads
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.nets.baseline import build_net, load_weights, weights_of
from fedprivseg.nets.local_training import Work, train_round

SIDE = 32


@pytest.fixture(scope="module")
def slices():
    """As blocks are, each of a brightness of its own."""
    found = blocks(48, SIDE)
    lit = numpy_generator(0, "light").uniform(0.6, 1.0, 48).astype(np.float32)
    found.images[:] *= lit[:, None, None]
    return found


def _view(slices, build, count, work, inner=150):
    net = build()
    before = weights_of(net)

    def update(images):
        load_weights(net, before)
        train_round(net, images, slices.masks[:count], work, 0, ("x",))
        return {name: before[name] - after for name, after in weights_of(net).items()}

    return UpdateView(
        update=update(slices.images[:count]),
        masks=slices.masks[:count],
        slices=tuple(range(count)),
        setting="",
        build=build,
        rehearse=update,
        auxiliary=slices.images[8:],
        effort=Effort(60, inner),
        seed=lambda *_: 0,
        work=work,
    )


def _leakage(attack, slices, view):
    assert attack.lacks(view) == ""
    with threads(1):
        found = attack.carry_out(view)
    count = len(view.masks)
    truth = Truth(slices.images[:count, None], slices.subjects[:count], slices.masks[:count], "images", "heart")
    metrics = {each.metric: each.leakage for each in evaluate(found, truth, slices.images[8:, None])}
    return metrics["squared error"]


@pytest.mark.parametrize("name", CONTROL_NETS)
def test_a_step_of_each_control_net_gives_its_image_away(slices, name):
    view = _view(slices, lambda: control_net(name, SIDE, SIDE, 3, 0), 1, Work(0, 1, 1, batch=1, half=False))
    assert _leakage(GradientInversion(), slices, view) > 0.5


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_simulated_steps_are_the_sites_own(slices, momentum):
    net = build_net("unet", "group", SIDE, 3, 0, "x").train()
    work = Work(0, 3, 6, batch=1, rate=0.05, momentum=momentum, clip=0.5, decay=1e-2, half=False)
    images = torch.from_numpy(slices.images[:1, None]).repeat(3, 1, 1, 1)
    masks = torch.from_numpy(slices.masks[:1]).repeat(3, 1, 1)
    found = {name: value.detach().numpy() for name, value in simulated(net, images, masks, work).items()}
    before = weights_of(net)
    train_round(net, slices.images[:1], slices.masks[:1], work, 0, ("x",))
    for name, after in weights_of(net).items():
        np.testing.assert_allclose(found[name], before[name] - after, atol=2e-6)


def test_two_passes_of_two_steps_give_their_slices_away(slices):
    work = Work(0, 4, 100, batch=1, rate=0.01, half=False)
    view = _view(slices, lambda: control_net(PLAIN, SIDE, SIDE, 3, 0), 2, work, inner=480)
    assert _leakage(MultiStepInversion(), slices, view) > 0.4
    assert "several steps" in GradientInversion().lacks(view)


def test_crafted_rows_give_every_slice_of_a_batch_away(slices):
    def build():
        return imprinted(SIDE, SIDE, 3, slices.images[8:])

    view = _view(slices, build, 3, Work(0, 1, 1, batch=3, half=False))
    assert _leakage(ClosedFormInversion(), slices, view) > 0.8


def test_no_closed_form_is_claimed_where_there_is_none(slices):
    work = Work(0, 1, 1, batch=1, half=False)
    unet = _view(slices, lambda: build_net("unet", "batch", SIDE, 3, 0, "x"), 1, work)
    assert "no dense layer" in ClosedFormInversion().lacks(unet)
    honest = _view(slices, lambda: control_net(PLAIN, SIDE, SIDE, 3, 0), 1, work)
    assert "do not carry the pixels" in ClosedFormInversion().lacks(honest)
