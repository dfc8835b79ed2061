"""Opponents: they learn what codes tell, cost nothing where codes tell nothing, and an encoder yields to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.seeds import building, numpy_generator
from fedprivseg.core.task import default_task
from fedprivseg.nets.adversaries import UNKNOWN, Adversaries, explained
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting, encode, fit_task_encoder

DISEASE = {"disease": np.arange(12, dtype=np.int64) % 2}


def _cost_after(codes: torch.Tensor, pictures: torch.Tensor, attributes: dict, steps: int = 250) -> float:
    with building(0, "opponents"):
        opponents = Adversaries(codes.shape[1], 4, pictures[:, 0].numpy(), attributes, "cpu")
    every = torch.arange(len(codes))
    for _ in range(steps):
        opponents.learn(codes, pictures, every)
    return float(opponents.cost(codes, pictures, every).detach())


def test_codes_that_are_the_picture_cost_nearly_everything_and_constant_ones_nothing() -> None:
    pictures = torch.from_numpy(blocks().images)[:, None]
    open_codes = torch.nn.functional.pixel_unshuffle(pictures, 4)
    assert _cost_after(open_codes, pictures, {}) > 1.6  # of 2: the linear inverter and the learned one
    assert _cost_after(torch.zeros_like(open_codes), pictures, {}) < 0.1


def test_the_linear_share_is_that_of_least_squares() -> None:
    draws = numpy_generator(0, "cells")
    code = torch.from_numpy(draws.standard_normal((6, 2, 8, 8), np.float32))
    pictures = torch.from_numpy(draws.standard_normal((6, 1, 32, 32), np.float32))
    pictures += torch.nn.functional.interpolate(code[:, :1], scale_factor=4.0)
    pixels = pictures.numpy().reshape(6, 8, 4, 8, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16)
    wide = np.pad(code.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = [wide[:, :, r : r + 8, c : c + 8] for r in range(3) for c in range(3)]
    cells = np.stack(moved, axis=2).transpose(0, 3, 4, 1, 2).reshape(-1, 18)
    cells, wanted = cells - cells.mean(axis=0), pixels - pixels.mean(axis=0)
    fitted = cells @ np.linalg.lstsq(cells, wanted, rcond=None)[0]
    oracle = (
        1
        - (np.square(wanted - fitted).sum() + np.square(pixels.mean(axis=0)).sum() * len(pixels))
        / np.square(pixels).sum()
    )
    assert float(explained(code, pictures)) == pytest.approx(oracle, abs=2e-3)  # the ridge takes a little


def test_a_probe_costs_what_it_can_tell_and_unknown_labels_cost_nothing() -> None:
    pictures = torch.from_numpy(blocks().images)[:, None]
    told = torch.from_numpy(DISEASE["disease"]).float()[:, None, None, None].expand(12, 1, 8, 8).contiguous()
    # The probe's share is 1 once it is certain; the inverters get next to nothing from a code that is one bit.
    assert 0.9 < _cost_after(told, pictures, DISEASE) < 1.6
    unknown = {"disease": np.full(12, UNKNOWN)}
    assert _cost_after(told, pictures, unknown, steps=5) == _cost_after(told, pictures, {}, steps=5)


def test_an_opposed_encoder_tells_a_linear_inverter_less() -> None:
    own = blocks(24)
    shade = numpy_generator(0, "shade").uniform(-0.2, 0.2, (24, 4, 4)).astype(np.float32)
    # Most of the picture is of no use to the mask.
    images = 0.25 + 0.5 * own.images + shade.repeat(8, axis=1).repeat(8, axis=2)
    fitting = Fitting(Schedule(steps=200, batch=8), None, 0, ("site", "test"), 3)

    def told(weight: float) -> float:
        net = fit_task_encoder(
            images, own.masks, fitting, depth=2, channels=4, context=8, levels=2, adversarial=weight
        )  # fmt: skip
        codes = torch.from_numpy(encode(net.encoder, images[:, None])).float()
        return float(explained(codes, torch.from_numpy(images - images.mean(axis=0))[:, None]))

    free, opposed = told(0.0), told(3.0)
    assert opposed < 0.5 * free, (free, opposed)


def test_the_opponents_depend_on_seed_and_names_alone() -> None:
    own = blocks()
    fitting = Fitting(Schedule(steps=3, batch=4), Augmentation(), 0, ("site", "test"), 3)

    def fit() -> torch.Tensor:
        net = fit_task_encoder(
            own.images,
            own.masks,
            fitting,
            depth=2,
            channels=4,
            context=8,
            levels=2,
            adversarial=1.0,
            attributes=DISEASE,
        )
        return torch.cat([value.flatten().float() for value in net.state_dict().values()])

    torch.manual_seed(1)
    first = fit()
    torch.manual_seed(2)
    assert torch.equal(first, fit())


def test_an_encoder_cannot_be_trained_for_the_image_and_against_it() -> None:
    from fedprivseg.methods.coded_parameters import PrivacySFParameters
    from fedprivseg.methods.privacy_sf import PrivacySF

    with pytest.raises(ValueError, match="image_reconstruction = 0"):
        PrivacySFParameters(encoder="task", image_reconstruction=0.5, opposition=1.0)
    with pytest.raises(ValueError, match="only a task encoder"):
        PrivacySFParameters(encoder="reconstruction", image_noise=0.5)
    answer = PrivacySF("improved", PrivacySFParameters(encoder="answer", image_channels=8))
    with pytest.raises(ScenarioError, match="set image_channels = 3"):
        answer.check(default_task())
