"""Positive and negative controls: on codes that are the pictures every attack reaches the ceiling, on noise none leaves the
floor. An attack without these could fail for any reason."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from torch import nn

from fedprivseg.attacks import ATTACKS
from fedprivseg.attacks.base import Effort, View
from fedprivseg.attacks.metrics import Truth, judge
from fedprivseg.core.compute import threads
from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.records import Grid
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.splits import cohort
from fedprivseg.imaging.volumes import gridded_slices

EFFORT = Effort(steps=80, inner=80)
SIDE = 48


@pytest.fixture(scope="module")
def pictures(phantom):
    """(victims' slices, attacker's slices, the victim site's training slices): three disjoint sets of subjects."""
    subjects = MnMs().read(phantom).subjects
    grid, load = Grid(SIDE, SIDE, 4.0), partial(MnMs().load, task=default_task())
    one, other = (
        cohort(subjects, SiteConfig(name=f"centre{centre}", centre=centre), DataConfig()) for centre in (1, 2)
    )
    return tuple(gridded_slices(load, part, grid, None) for part in (one.test, other.train, one.train))


def _view(pictures, encode, architecture=nn.Identity):
    victims, elsewhere, home = (each.images[:, None] for each in pictures)
    return View(
        codes=encode(victims),
        shape=(1, SIDE, SIDE),
        what="images",
        effort=EFFORT,
        seed=0,
        auxiliary=elsewhere,
        query=encode,
        pairs=(home, encode(home)),
        foreign={"other": lambda codes: codes},
        architecture=architecture,
    )


def _leakages(pictures, view, attack):
    truth = Truth(pictures[0].images[:, None], pictures[0].subjects, pictures[0].masks, "images", "heart")
    found = {}
    with threads(1):
        reconstructions = attack().carry_out(view)
    for setting, drawn in reconstructions.items():
        figures = judge(drawn, truth, view.auxiliary, 0)
        found[setting] = next(figure.leakage for figure in figures if figure.measure == "SSIM")
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_codes_that_are_the_pictures_give_everything(pictures, attack):
    view = _view(pictures, lambda images: images)
    found = _leakages(pictures, view, attack)
    assert max(found.values()) > 0.85, found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_noise_gives_nothing(pictures, attack):
    draws = numpy_generator(0, "noise codes")
    view = _view(pictures, lambda images: draws.random((len(images), 1, SIDE, SIDE), np.float32))
    found = _leakages(pictures, view, attack)
    assert max(found.values()) < 0.05, found
