"""Attacks about people on crowds whose answer is known: everything told, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fedprivseg.attacks.attributes import Attributes, leave_one_out
from fedprivseg.attacks.base import Effort
from fedprivseg.attacks.linkage import Linkage
from fedprivseg.attacks.membership import Membership, losses
from fedprivseg.attacks.people import Population, pooled
from fedprivseg.core.seeds import numpy_generator

PEOPLE, SLICES, SIDE = 10, 4, 16


def _crowd(seed: int, codes: str = "own", told: bool = False) -> Population:
    """`PEOPLE` patients of `SLICES` slices in each phase. Codes: ``own`` says whose they are (a pattern a patient), ``noise``
    nothing; `told`: whether they say the disease."""
    draws = numpy_generator(seed, "crowd")
    subjects = np.repeat(np.arange(PEOPLE), 2 * SLICES)
    phases = np.tile(np.repeat([0, 1], SLICES), PEOPLE)
    places = np.tile(np.linspace(0, 1, SLICES), 2 * PEOPLE)
    ill = np.arange(PEOPLE) % 2
    noise = draws.standard_normal((len(subjects), 2, 8, 8))
    patterns = draws.standard_normal((PEOPLE, 2, 8, 8))
    released = (
        noise + (4 * patterns[subjects] if codes == "own" else 0) + (6 * ill[subjects, None, None, None] if told else 0)
    )
    images = draws.random((len(subjects), SIDE, SIDE)).astype(np.float32)
    masks = np.zeros((len(subjects), SIDE, SIDE), np.uint8)
    masks[:, 4:10, 4:10] = 1
    member = subjects < 6
    return Population(
        images=images,
        masks=masks,
        subjects=subjects,
        phases=phases,
        places=places,
        member=member,
        attributes={"disease": tuple("sick" if one else "well" for one in ill), "sex": ("",) * PEOPLE},
        codes=released.astype(np.float32),
        predict=lambda given: np.full((len(given), 4, SIDE, SIDE), 0.25, np.float32),
        elsewhere=(images[:16], masks[:16]),
        structures=3,
        times=("ED", "ES"),
        effort=Effort(3, 3),
        seed=seed,
    )


def _told(attack, crowd):
    return {one.measure: one for one in attack.infer(crowd)}


def test_codes_with_a_pattern_a_patient_link_and_noise_does_not():
    told = _told(Linkage(), _crowd(0))
    assert told["ED against ES: AUC"].value == 1
    assert told["ED against ES: right patient first"].value == 1
    assert told["ED against ES: right patient first"].chance == pytest.approx(1 / PEOPLE)
    assert told["neighbouring slices: AUC"].value > 0.99
    # On noise: the mean over crowds is chance, within three standard errors of what its spread over them says.
    values = np.array([_told(Linkage(), _crowd(seed, "noise"))["ED against ES: AUC"].value for seed in range(20)])
    assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(len(values)) + 0.01
    # The raw images are noise as well, whatever the codes say.
    assert abs(told["ED against ES: AUC"].raw - 0.5) < 0.35


def test_a_probe_finds_what_the_codes_say_and_no_more():
    told = _told(Attributes(), _crowd(0, "noise", told=True))
    assert set(told) == {"disease: accuracy"}  # nobody knows the sex
    assert told["disease: accuracy"].value == 1
    assert told["disease: accuracy"].chance == 0.5
    values = [_told(Attributes(), _crowd(seed, "noise"))["disease: accuracy"].value for seed in range(20)]
    assert np.mean(values) < 0.65


def test_a_probe_is_scored_on_patients_it_did_not_see():
    # With more features than patients, any labels can be learned by heart; leaving one out shows that nothing was.
    draws = numpy_generator(0, "rows")
    rows, words = draws.standard_normal((12, 200)), ["a", "b"] * 6
    assert np.mean([one == other for one, other in zip(leave_one_out(rows, words), words, strict=True)]) < 0.8


def _system(crowd: Population, knows: np.ndarray):
    """A system that is certain and right on the slices where `knows`, and undecided elsewhere."""

    def predict(images: np.ndarray) -> np.ndarray:
        scores = np.full((len(images), 4, SIDE, SIDE), 0.25, np.float32)
        right = (np.arange(4)[None, :, None, None] == crowd.masks[:, None]).astype(np.float32)
        scores[knows] = 0.97 * right[knows] + 0.01 * (1 - right[knows])
        return scores

    return predict


def test_a_system_that_knows_its_members_gives_them_away_and_the_control_stays_at_chance():
    crowd = _crowd(0)
    told = _told(Membership(), Population(**{**vars(crowd), "predict": _system(crowd, crowd.member)}))
    assert told["slices: AUC"].value == 1
    assert told["patients: AUC"].value == 1
    assert told["slices: TPR at 1 % FPR"].value == 1
    assert 0.2 < told["control, members against members: AUC"].value < 0.8


def test_a_test_that_sees_the_same_everywhere_tells_nothing():
    crowd = _crowd(0)
    told = _told(Membership(), crowd)
    assert 0.2 < told["slices: AUC"].value < 0.8
    everyone = Population(**{**vars(crowd), "member": np.ones(len(crowd.member), bool)})
    assert Membership().infer(everyone) == ()


def test_losses_are_the_mean_cross_entropy():
    scores = np.full((1, 4, 2, 2), 0.25, np.float32)
    assert losses(scores, np.zeros((1, 2, 2), np.uint8)) == pytest.approx([np.log(4)])


def test_pooling_averages_fields():
    picture = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert pooled(picture, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
