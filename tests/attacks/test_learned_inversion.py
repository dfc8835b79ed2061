"""Learned inversion: from the gradient of a real network it makes more than its own mean image, from noise exactly that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.attacks.base import Effort, UpdateView
from fedprivseg.attacks.learned_inversion import KEPT, NAME, Sketch, map_of
from fedprivseg.attacks.metrics import Truth, evaluate
from fedprivseg.attacks.rehearsal import own_images
from fedprivseg.core.compute import threads
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.nets.baseline import build_net
from fedprivseg.nets.local_training import supervised_loss

SIDE = 32


@pytest.fixture(scope="module")
def slices():
    return blocks(40, SIDE)


@pytest.fixture(scope="module")
def net():
    return build_net("unet", "group", SIDE, 3, 0, "x").train()


def _gradient(net, images, masks):
    loss = supervised_loss(net(torch.from_numpy(images[:, None])), torch.from_numpy(masks))
    weights = dict(net.named_parameters())
    return {
        name: each.numpy() for name, each in zip(weights, torch.autograd.grad(loss, [*weights.values()]), strict=True)
    }


@pytest.fixture(scope="module")
def inverse(slices, net):
    """Learned under the outlines of slice 0, on images of the slices from 4 on."""
    with threads(1):
        view = UpdateView(
            update={},
            masks=slices.masks[:1],
            slices=(0,),
            setting="",
            build=lambda: net,
            rehearse=lambda images: _gradient(net, images, slices.masks[:1]),
            auxiliary=slices.images[4:],
            effort=Effort(120, 0),
            seed=lambda *_: 0,
        )
        return map_of(view, own_images(view, NAME))


def _leakage(slices, found):
    truth = Truth(slices.images[:1, None], slices.subjects[:1], slices.masks[:1], "images", "heart")
    return {each.metric: each.leakage for each in evaluate(found, truth, slices.images[4:, None])}


def test_the_update_of_one_slice_gives_more_than_the_floor(slices, net, inverse):
    found = _leakage(slices, inverse(_gradient(net, slices.images[:1], slices.masks[:1])))
    assert found["SSIM"] > 0.1, found
    assert found["squared error"] > 0.2, found


def test_noise_gives_the_floor_and_nothing_more(slices, net, inverse):
    draws = numpy_generator(0, "update")
    noise = {name: draws.standard_normal(weight.shape).astype(np.float32) for name, weight in net.named_parameters()}
    found = inverse(noise)
    np.testing.assert_allclose(found[0, 0], slices.images[4:].mean(axis=0), atol=1e-2)
    assert abs(_leakage(slices, found)["SSIM"]) < 0.01


def test_an_update_of_nothing_gives_the_floor(slices, net, inverse):
    nothing = {name: np.zeros(weight.shape, np.float32) for name, weight in net.named_parameters()}
    assert _leakage(slices, inverse(nothing))["SSIM"] < 0.05


def test_the_length_of_an_update_says_nothing(slices, net, inverse):
    update = _gradient(net, slices.images[:1], slices.masks[:1])
    longer = {name: value * (3.0 + place) for place, (name, value) in enumerate(update.items())}
    np.testing.assert_allclose(inverse(longer), inverse(update), atol=1e-4)


def test_a_sketch_is_small_and_keeps_angles(net, slices):
    one, other = (_gradient(net, slices.images[place : place + 1], slices.masks[:1]) for place in (0, 1))
    name = max(one, key=lambda each: one[each].size)
    assert one[name].size > 10 * KEPT
    sketch = Sketch.of({name: one[name]}, 0)
    a, b = sketch({name: one[name]}), sketch({name: other[name]})
    assert a.shape == (KEPT,)
    angle = float((one[name] * other[name]).sum() / np.linalg.norm(one[name]) / np.linalg.norm(other[name]))
    # A count sketch of unit vectors keeps their product up to a deviation of sqrt(2 / 1024) = 0.044; five of them.
    assert float(a @ b) == pytest.approx(angle, abs=0.22)
