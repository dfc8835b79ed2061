"""Refinement at a site: it uses the answer where the image is silent, and the image where the answer is wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fakes import blocks

from fedprivseg.core.seeds import numpy_generator, torch_generator
from fedprivseg.nets.augment import Augmentation, augment, augment_beside
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting import Fitting
from fedprivseg.nets.refinement import SUREST, fit_refinement, noisy, refine
from fedprivseg.nets.segmentation import as_picture, probabilities

FITTING = Fitting(Schedule(steps=3, batch=4), Augmentation(), 0, ("site", "refinement"), 3)
LONGER = Fitting(Schedule(steps=150, batch=8, rate=5e-3), None, 0, ("site", "refinement"), 3)


def _answers(masks: np.ndarray, sure: float = 3.0) -> np.ndarray:
    """What somebody answers who knows the masks: probabilities (N, 4, H, W)."""
    return probabilities(2 * sure * as_picture(torch.from_numpy(masks), 3) - sure).numpy()


def _share(found: np.ndarray, masks: np.ndarray) -> float:
    return float((found.argmax(axis=1) == masks).mean())


def test_a_fit_depends_on_seed_and_names_alone() -> None:
    own = blocks()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()

    def fit(fitting: Fitting, answers: np.ndarray | None) -> torch.Tensor:
        net = fit_refinement(own.images, own.masks, answers, fitting, noise=4.0)
        return torch.cat([value.flatten().float() for value in net.state_dict().values()])

    first = fit(FITTING, _answers(own.masks))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, fit(FITTING, _answers(own.masks)))
    assert not torch.equal(first, fit(FITTING, None))
    assert not torch.equal(first, fit(dataclasses.replace(FITTING, seed=1), _answers(own.masks)))


def test_it_takes_from_the_answer_what_no_image_shows_and_the_control_cannot() -> None:
    own, other = blocks(24), blocks(8, seed=1)
    noise = numpy_generator(0, "no image").random((32, 32, 32), np.float32)
    found = {}
    for name, answers in (("answer", _answers), ("none", lambda masks: None)):
        net = fit_refinement(noise[:24], own.masks, answers(own.masks), LONGER, noise=1.0)
        found[name] = _share(refine(net, noise[24:], answers(other.masks)), other.masks)
    # Where blocks usually are is known without any image; what is left is more than twice as wrong.
    assert found["answer"] > 0.9
    assert 1 - found["none"] > 2 * (1 - found["answer"]), found


def test_it_takes_from_the_image_what_the_answer_has_wrong() -> None:
    own, other = blocks(24), blocks(8, seed=1)
    wrong = _answers(np.roll(own.masks, 1, axis=0)), _answers(np.roll(other.masks, 1, axis=0))
    net = fit_refinement(own.images, own.masks, wrong[0], LONGER, noise=1.0)
    found = _share(refine(net, other.images, wrong[1]), other.masks)
    assert found > 0.9 > _share(wrong[1], other.masks)


def test_scores_are_probabilities_of_the_images_given() -> None:
    own = blocks(5)
    net = fit_refinement(own.images, own.masks, None, FITTING, noise=0.0)
    found = refine(net, own.images, None)
    assert found.shape == (5, 4, 32, 32)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(refine(net, own.images, np.zeros((5, 4, 32, 32))), found)


def test_noise_changes_answers_as_far_as_it_says() -> None:
    answers = torch.from_numpy(_answers(blocks(40).masks)[:, 1:])
    found = noisy(answers, 4.0, torch_generator(0, "noise"))
    assert torch.equal(found, noisy(answers, 4.0, torch_generator(0, "noise")))
    assert found.shape == answers.shape
    assert found.min() >= 0
    assert found.sum(dim=1).max() <= 1 + 1e-5
    less = noisy(answers, 1.0, torch_generator(0, "noise"))
    assert (found - answers).abs().mean() > 2 * (less - answers).abs().mean() > 0
    torch.testing.assert_close(noisy(answers, 0.0, torch_generator(0, "noise")), answers, atol=1e-3, rtol=0)


def test_an_answer_is_nowhere_surer_than_noise_can_change() -> None:
    certain = torch.zeros(1, 3, 8, 8)
    certain[:, 0] = 1.0
    found = noisy(certain, 0.0, torch_generator(0, "noise"))
    # Odds of e**SUREST for the first structure; the others and the background, of which there is nothing, have the same.
    most = np.exp(SUREST) / (np.exp(SUREST) + 3)
    assert float(found[0, 0, 0, 0]) == pytest.approx(most, rel=1e-4)


def test_what_stands_beside_is_warped_with_the_mask() -> None:
    own = blocks(6)
    images, masks = torch.from_numpy(own.images)[:, None], torch.from_numpy(own.masks)
    beside = as_picture(masks, 3)
    plain = augment(images, masks, Augmentation(), torch_generator(0, "warp"))
    warped, labels, shares = augment_beside(images, masks, beside, Augmentation(), torch_generator(0, "warp"))
    assert torch.equal(plain[0], warped)
    assert torch.equal(plain[1], labels)
    known = torch.cat([1 - shares.sum(dim=1, keepdim=True), shares], dim=1).argmax(dim=1)
    assert (known == labels).float().mean() > 0.999
    assert not torch.equal(labels, masks)
