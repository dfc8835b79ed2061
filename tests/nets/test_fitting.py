"""Fitting at a site: learns on toy slices, repeats bit for bit, touches no global state."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.core.errors import RunError
from fedprivseg.core.seeds import numpy_generator, torch_generator
from fedprivseg.nets.augment import Augmentation
from fedprivseg.nets.descent import Schedule, descend, shuffled
from fedprivseg.nets.fitting import (
    Fitting,
    encode,
    fit_answer_encoder,
    fit_image_codec,
    fit_mask_codec,
    fit_task_encoder,
    fit_unet,
    scores,
    sound,
)
from fedprivseg.nets.segmentation import (
    PRIOR,
    as_picture,
    expect_background,
    lost_structures,
    probabilities,
    segmentation_loss,
)

NAMES = ("LV", "MYO", "RV")
FITTING = Fitting(Schedule(steps=4, batch=4), Augmentation(), 0, ("site", "test"), 3)


def _slices(count: int = 12, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    own = blocks(count, side)
    return own.images, own.masks


def _small_structures(count: int = 24, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, H, W) with a disc, a ring around it and a bar beside it, each somewhere else, under noise."""
    draws = numpy_generator(0, "small structures")
    rows, columns = np.mgrid[:side, :side]
    masks = np.zeros((count, side, side), np.uint8)
    for mask in masks:
        row, column = draws.integers(22, 42, 2)
        distance = np.hypot(rows - row, columns - column)
        mask[(abs(rows - row) < 7) & (abs(columns - column + 14) < 4)] = 3
        mask[distance < 9] = 2
        mask[distance < 6] = 1
    means = np.array([0.2, 0.8, 0.35, 0.7])
    images = np.clip(means[masks] + 0.05 * draws.standard_normal(masks.shape), 0, 1).astype(np.float32)
    return images, masks


def _weights(net: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in net.state_dict().values()])


@pytest.mark.parametrize(
    "kind", ["image codec", "mask codec", "task encoder", "noisy task encoder", "unet", "answer encoder"]
)
def test_a_fit_depends_on_seed_and_names_alone(kind: str) -> None:
    images, masks = _slices()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()

    def fit(fitting: Fitting) -> torch.Tensor:
        if kind == "image codec":
            return _weights(fit_image_codec(images, fitting))
        if kind == "mask codec":
            return _weights(fit_mask_codec(masks, fitting, depth=2, channels=4, noise=0.5))
        if kind.endswith("task encoder"):
            noise = 0.5 if kind.startswith("noisy") else 0.0
            return _weights(
                fit_task_encoder(images, masks, fitting, depth=2, channels=4, context=8, levels=2, noise=noise)
            )
        if kind == "answer encoder":
            return _weights(fit_answer_encoder(images, masks, fitting, depth=2))
        return _weights(fit_unet(images, masks, fitting))

    first = fit(FITTING)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, fit(FITTING))
    assert not torch.equal(first, fit(dataclasses.replace(FITTING, names=("other site", "test"))))
    assert not torch.equal(first, fit(dataclasses.replace(FITTING, seed=1)))


def test_a_mask_codec_learns_to_give_masks_back_through_noise() -> None:
    _, masks = _slices()
    codec = fit_mask_codec(masks, _longer(80), depth=2, channels=4, noise=0.5)
    codes = encode(codec.encoder, as_picture(torch.from_numpy(masks), 3).numpy())
    assert codes.dtype == np.float16
    assert codes.shape == (12, 4, 8, 8)
    noisy = codes + 0.3 * numpy_generator(0, "noise").standard_normal(codes.shape)
    labels = scores(codec.decoder, noisy).argmax(axis=1)
    assert (labels == masks).mean() > 0.88


def test_an_image_codec_learns_to_give_images_back() -> None:
    images, _ = _slices()
    fitting = _longer(80)
    codec = fit_image_codec(images, fitting, depth=2)
    with torch.no_grad():
        decoded = codec(torch.from_numpy(images)[:, None])[:, 0].numpy()
    assert np.square(decoded - images).mean() < 0.3 * images.var()


def test_a_task_encoder_learns_the_task() -> None:
    images, masks = _slices()
    net = fit_task_encoder(images, masks, _longer(80), depth=2, channels=4, context=8, levels=2)
    predicted = scores(net, images[:, None]).argmax(axis=1)
    assert (predicted == masks).mean() > 0.9
    assert lost_structures(lambda _: predicted, images, masks, NAMES) == ()


def test_a_code_that_is_an_answer_holds_the_share_of_each_structure_in_a_cell() -> None:
    images, masks = _slices()
    net = fit_answer_encoder(images, masks, _longer(60), depth=2)
    codes = encode(net, images[:, None])
    assert codes.shape == (12, 3, 8, 8)
    shares = as_picture(torch.from_numpy(masks), 3).unflatten(2, (8, 4)).unflatten(4, (8, 4)).mean(dim=(3, 5)).numpy()
    assert np.corrcoef(codes.ravel(), shares.ravel())[0, 1] > 0.9


def test_reconstruction_makes_a_code_keep_more_of_the_image() -> None:
    # Shading that the mask does not need: the best linear decoder of a code tells how much of it the code kept.
    images, masks = _slices(24)
    texture = numpy_generator(0, "texture").random((24, 8, 8), np.float32).repeat(4, axis=1).repeat(4, axis=2)
    images = 0.7 * images + 0.3 * texture

    def unexplained(reconstruction: float) -> float:
        net = fit_task_encoder(
            images,
            masks,
            _longer(60),
            depth=2,
            channels=8,
            context=8,
            levels=1,
            space_to_depth=2,
            reconstruction=reconstruction,
        )
        assert (net.redraw is not None) == (reconstruction > 0)
        codes = encode(net.encoder, images[:, None]).astype(np.float64)
        known = np.column_stack([codes.transpose(0, 2, 3, 1).reshape(-1, 8), np.ones(codes[:, 0].size)])
        residual = np.linalg.lstsq(known, texture[:, ::4, ::4].reshape(-1, 1), rcond=None)[1]
        return float(residual.sum())

    assert unexplained(0.9) < 0.8 * unexplained(0.0)


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[str, int, int]] = []
    fit_image_codec(_slices()[0], dataclasses.replace(FITTING, progress=lambda *step: told.append(step)), depth=1)
    assert told == [("site test", done, 4) for done in (1, 2, 3, 4)]


def test_an_untrained_network_expects_every_structure_in_its_share_of_the_pixels() -> None:
    output = torch.nn.Conv2d(4, 3 * 4, 1)  # three structures, pixels folded by two
    torch.nn.init.zeros_(output.weight)
    expect_background(output, 3)
    shares = probabilities(torch.nn.PixelShuffle(2)(output(torch.ones(1, 4, 3, 3))))
    torch.testing.assert_close(shares[:, 1:], torch.full((1, 3, 6, 6), PRIOR))


def test_a_task_encoder_finds_small_structures_after_a_short_training() -> None:
    """Structures of 1 to 4 % of a slice, as in the heart. From torch's own start the bar beside the ring ends with a Dice of
    0.01, the ring with 0.22; from `expect_background` all have 0.74 or more."""
    images, masks = _small_structures()
    fitting = Fitting(Schedule(steps=60, batch=8, rate=4e-3), Augmentation(), 0, ("site", "test"), 3)
    net = fit_task_encoder(images, masks, fitting, depth=2, channels=8, space_to_depth=2, context=8, reconstruction=0.5)
    assert lost_structures(lambda _: scores(net, images[:, None]).argmax(axis=1), images, masks, NAMES, floor=0.5) == ()


def test_a_mask_codec_finds_small_structures_after_a_short_training() -> None:
    """As above: 0.56 for the bar from torch's own start, 0.78 or more for all from `expect_background`."""
    images, masks = _small_structures()
    fitting = Fitting(Schedule(steps=40, batch=8, rate=6e-3), Augmentation(), 0, ("site", "test"), 3)
    net = fit_mask_codec(masks, fitting, depth=2, channels=4, space_to_depth=1, noise=1.5)
    inputs = as_picture(torch.from_numpy(masks), 3).numpy()
    assert lost_structures(lambda _: scores(net, inputs).argmax(axis=1), images, masks, NAMES, floor=0.68) == ()


@pytest.mark.parametrize(
    ("lost", "kept", "fits"),
    [
        ([()], 0, 1),
        ([("RV",), ()], 1, 2),
        ([("MYO", "RV"), ("RV",), ("LV",)], 1, 3),
    ],
)
def test_what_lost_a_structure_is_trained_again_from_another_draw(lost, kept, fits) -> None:
    nets = [torch.nn.Identity() for _ in range(3)]
    asked = []

    def fit(attempt: int) -> torch.nn.Module:
        asked.append(attempt)
        return nets[attempt]

    assert sound(fit, lambda net: lost[nets.index(net)]) == (nets[kept], lost[kept])
    assert asked == list(range(fits))


def test_lost_structures_are_named_and_absent_ones_are_not() -> None:
    images, masks = _slices()
    blind = np.where(masks == 3, 0, masks)
    assert lost_structures(lambda _: blind, images, masks, NAMES) == ("RV",)
    assert lost_structures(lambda _: np.zeros_like(masks), images, masks, NAMES) == ("LV", "MYO", "RV")
    assert lost_structures(lambda _: blind, images, blind, NAMES) == ()


def test_segmentation_loss_agrees_with_torch() -> None:
    # Oracle: torch's cross-entropy over four classes with a zero background logit, and soft Dice by its definition.
    draws = torch_generator(0, "test")
    logits = 3 * torch.randn(5, 3, 8, 8, generator=draws)
    masks = torch.randint(0, 4, (5, 8, 8), generator=draws)
    full = torch.cat([torch.zeros(5, 1, 8, 8), logits], dim=1)
    shares, truth = full.softmax(dim=1)[:, 1:], torch.nn.functional.one_hot(masks, 4).permute(0, 3, 1, 2)[:, 1:]
    axes = (0, 2, 3)
    dice = (2 * (shares * truth).sum(axes) + 1) / (shares.sum(axes) + truth.sum(axes) + 1)
    expected = torch.nn.functional.cross_entropy(full, masks) + 1 - dice.mean()
    torch.testing.assert_close(segmentation_loss(logits, masks), expected)
    torch.testing.assert_close(probabilities(logits)[:, 1:], shares)


def test_every_slice_is_seen_once_before_any_is_seen_again() -> None:
    batches = shuffled(7, 3, torch_generator(0, "test"))
    drawn = torch.cat([next(batches) for _ in range(7)])
    for start in range(0, 21, 7):
        assert sorted(drawn[start : start + 7].tolist()) == list(range(7))


def test_averaged_weights_are_the_mean_of_the_path() -> None:
    # One weight, loss w: AdamW walks down steadily, so an average lies above the last weight and below the first.
    def last(averaging: float) -> float:
        net = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(net.weight)
        schedule = Schedule(steps=50, rate=1e-2, averaging=averaging)
        descend(net, lambda _: net.weight.sum(), 2, schedule, 0, ("test",))
        return float(net.weight.detach())

    assert last(0.0) < last(0.9) < 1.0


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="2 slices or more"):
        Schedule(steps=10, batch=1)
    with pytest.raises(ValueError, match="0 slices given"):
        fit_image_codec(np.zeros((0, 32, 32), np.float32), FITTING)
    net = torch.nn.Linear(1, 1)
    with pytest.raises(RunError, match="diverged"):
        descend(net, lambda _: net.weight.sum() * float("nan"), 2, Schedule(steps=2), 0, ("test",))


def _longer(steps: int) -> Fitting:
    gentle = Augmentation(rotation=5, scale=0.05, shift=0.02, flip=False, elastic=0, gamma=0, contrast=0, bias=0)
    return Fitting(Schedule(steps=steps, batch=8, rate=1e-2), gentle, 0, ("toy",), 3)
