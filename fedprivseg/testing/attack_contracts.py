"""What every attack keeps. Above all its controls: an attack that could fail for any reason shows nothing when it fails.

On codes that are the pictures a reconstruction reaches the upper baseline, on noise it stays at the lower one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedprivseg.attacks import ATTACKS
from fedprivseg.attacks.base import Effort, Inference, Population, Reconstruction, UpdateAttack, UpdateView, View
from fedprivseg.attacks.metrics import Truth, evaluate
from fedprivseg.core.compute import threads
from fedprivseg.core.config import AdmissionConfig, DataConfig, SiteConfig
from fedprivseg.core.records import Grid, Slices
from fedprivseg.core.seeds import building, numpy_generator
from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.splits import cohort
from fedprivseg.imaging.volumes import gridded_slices
from fedprivseg.nets.baseline import Weights, weights_of
from fedprivseg.nets.local_training import supervised_loss
from fedprivseg.testing.contract import Contract

SIDE = 48
EFFORT = Effort(steps=80, inner=80)
EVERYTHING, NOTHING = 0.85, 0.05
"""Normalised leakage that a control must reach at least, and may reach at most."""

PATIENTS, SLICES = 10, 4

Phantoms = tuple[Slices, Slices, Slices]
"""The victims' slices, the attacker's, and those of the victims' site: of three disjoint sets of subjects."""


class AttackContract(Contract):
    """What all attacks keep."""

    registry = ATTACKS

    @pytest.fixture(scope="session")
    @classmethod
    def phantoms(cls, release: Path) -> Phantoms:
        """Slices of the phantom."""
        subjects, load = MnMs().read(release).subjects, partial(MnMs().load, task=default_task())
        one, other = (
            cohort(subjects, SiteConfig(name=f"centre{centre}", centre=centre), DataConfig()) for centre in (1, 2)
        )
        victims, elsewhere, home = (
            gridded_slices(load, part, Grid(SIDE, SIDE, 4.0), None) for part in (one.test, other.train, one.train)
        )
        return victims, elsewhere, home

    def test_it_says_what_its_adversary_knows(self, part: Any) -> None:
        """In its identity, which stands beside every number."""
        identity = part().identity
        assert all(identity.values())
        assert identity["attack"] == part.name


class ReconstructionContract(AttackContract):
    """What every reconstruction from codes keeps."""

    def test_codes_that_are_the_pictures_give_everything(self, part: type[Reconstruction], phantoms: Phantoms) -> None:
        """The positive control."""
        found = _leakages(part, phantoms, lambda images: images)
        assert max(found.values()) > EVERYTHING, found

    def test_noise_gives_nothing(self, part: type[Reconstruction], phantoms: Phantoms) -> None:
        """The negative control."""
        draws = numpy_generator(0, "noise codes")
        found = _leakages(part, phantoms, lambda images: draws.random((len(images), 1, SIDE, SIDE), np.float32))
        assert max(found.values()) < NOTHING, found


class UpdateAttackContract(AttackContract):
    """What every reconstruction from updates of weights keeps."""

    def test_a_gradient_that_holds_the_image_gives_it_away(self, part: type[UpdateAttack], phantoms: Phantoms) -> None:
        """The positive control, and the same again."""
        victim = _fullest(phantoms[0])
        update = _gradient(victim.images, victim.masks)
        found, again = (_leakage_of_update(part, update, phantoms) for _ in range(2))
        assert found > 10 * NOTHING
        assert found == again

    def test_a_random_update_gives_nothing(self, part: type[UpdateAttack], phantoms: Phantoms) -> None:
        """The negative control."""
        draws = numpy_generator(0, "update")
        update = {
            name: draws.standard_normal(weight.shape).astype(np.float32) for name, weight in weights_of(_net()).items()
        }
        assert _leakage_of_update(part, update, phantoms) < NOTHING


class InferenceContract(AttackContract):
    """What every inference about patients keeps."""

    def test_its_numbers_have_a_reference_and_count_for_an_indicator(self, part: type[Inference]) -> None:
        """On patients whose codes say whose they are."""
        found = part().infer(population())
        assert found
        assert part.indicator in AdmissionConfig.model_fields
        assert any(one.counts is not None for one in found)
        for one in found:
            assert one.metric
            assert one.count
            assert 0 <= one.value <= 1
            assert 0 <= one.chance <= 1
        assert part().infer(population()) == found, "the same again"

    def test_one_patient_is_no_population(self, part: type[Inference]) -> None:
        """Nothing can be inferred."""
        whole = population()
        own = whole.subjects == 0
        arrays = {
            name: value[own]
            for name, value in vars(whole).items()
            if isinstance(value, np.ndarray) and len(value) == len(own)
        }
        words = {name: values[:1] for name, values in whole.attributes.items()}
        assert part().infer(replace(whole, **arrays, attributes=words)) == ()


def population(seed: int = 0, codes: str = "own", *, sick: bool = False) -> Population:
    """`PATIENTS` patients of `SLICES` slices in each phase, in random images.

    Args:
        seed: of every draw.
        codes: ``own`` says whose they are (a pattern a patient), ``noise`` nothing.
        sick: whether they say the disease.
    """
    draws = numpy_generator(seed, "population")
    subjects = np.repeat(np.arange(PATIENTS), 2 * SLICES)
    ill = np.arange(PATIENTS) % 2
    noise = draws.standard_normal((len(subjects), 2, 8, 8))
    patterns = draws.standard_normal((PATIENTS, 2, 8, 8))
    released = noise + (4 * patterns[subjects] if codes == "own" else 0)
    released += 6 * ill[subjects, None, None, None] if sick else 0
    images = draws.random((len(subjects), 16, 16)).astype(np.float32)
    masks = np.zeros(images.shape, np.uint8)
    masks[:, 4:10, 4:10] = 1
    return Population(
        images=images,
        masks=masks,
        subjects=subjects,
        phases=np.tile(np.repeat([0, 1], SLICES), PATIENTS),
        places=np.tile(np.linspace(0, 1, SLICES), 2 * PATIENTS),
        member=subjects < 6,
        attributes={"disease": tuple("sick" if one else "well" for one in ill), "sex": ("",) * PATIENTS},
        codes=released.astype(np.float32),
        predict=lambda given: np.full((len(given), 4, *given.shape[1:]), 0.25, np.float32),
        elsewhere=(images[:16], masks[:16]),
        structures=3,
        times=default_task().times,
        effort=Effort(3, 3),
        seed=seed,
        trained={"images": images[subjects < 6, None]},
        query={"images": lambda given: given},
        query_elsewhere={"images": lambda given: given},
    )


def _leakages(
    part: type[Reconstruction], phantoms: Phantoms, encode: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """The leakage that the attack reaches in each of its settings, on codes that `encode` makes."""
    victims, elsewhere, home = (each.images[:, None] for each in phantoms)
    view = View(
        codes=encode(victims),
        shape=(1, SIDE, SIDE),
        what="images",
        effort=EFFORT,
        seed=0,
        auxiliary=elsewhere,
        query=encode,
        pairs=(home, encode(home)),
        foreign={"other": lambda codes: codes},
        architecture=nn.Identity,
    )
    with threads(1):
        found = part().carry_out(view)
    return {setting: _leakage(each, phantoms[0], phantoms[1], "SSIM") for setting, each in found.items()}


def _leakage(found: np.ndarray, victims: Slices, elsewhere: Slices, metric: str) -> float:
    truth = Truth(victims.images[:, None], victims.subjects, victims.masks, "images", "heart")
    metrics = evaluate(found, truth, elsewhere.images[:, None])
    return next(each.leakage for each in metrics if each.metric == metric and each.leakage is not None)


class _Recorded(nn.Module):
    """Passes images on, and keeps running statistics of each field of 4 x 4 pixels of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d((SIDE // 4) ** 2, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.norm(nn.functional.unfold(images, 4, stride=4).transpose(1, 2))
        return images


def _net() -> nn.Module:
    """The gradient of its dense layer on an image is a multiple of that image, and its running statistics show it coarsely."""
    with building(0, "dense"):
        layers = nn.Flatten(), nn.Linear(SIDE * SIDE, 3 * 16), nn.Unflatten(1, (3, 4, 4)), nn.Upsample(scale_factor=12)
        return nn.Sequential(_Recorded(), *layers)


def _gradient(images: np.ndarray, masks: np.ndarray) -> Weights:
    """What one step at rate 1 shows: the gradient, and the statistics before minus after."""
    net = _net().train()
    before = weights_of(net)
    supervised_loss(net(torch.from_numpy(images[:, None])), torch.from_numpy(masks)).backward()
    update = {name: before[name] - after for name, after in weights_of(net).items()}
    return update | {name: weight.grad.numpy() for name, weight in net.named_parameters() if weight.grad is not None}


def _fullest(slices: Slices) -> Slices:
    """The slice that shows most of all structures."""
    place = [int((slices.masks > 0).sum(axis=(1, 2)).argmax())]
    return Slices(slices.images[place], slices.masks[place], slices.subjects[place])


def _leakage_of_update(part: type[UpdateAttack], update: Weights, phantoms: Phantoms) -> float:
    """The leakage that the attack reaches on an update of the victims' fullest slice."""
    victim, elsewhere = _fullest(phantoms[0]), phantoms[1]
    view = UpdateView(
        update=update,
        masks=victim.masks,
        slices=(0,),
        setting="",
        build=_net,
        rehearse=lambda images: _gradient(images, victim.masks),
        auxiliary=elsewhere.images,
        effort=EFFORT,
        seed=lambda *names: 0,
    )
    with threads(1):
        return _leakage(part().carry_out(view), victim, elsewhere, "squared error")
