"""Inferences about patients on populations whose answer is known: everything can be inferred, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedprivseg.attacks.attributes import Attributes, leave_one_out
from fedprivseg.attacks.base import Population, pooled
from fedprivseg.attacks.linkage import Linkage
from fedprivseg.attacks.membership import Membership, losses
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.testing.attack_contracts import PATIENTS, population


def _inferred(attack, of):
    return {one.metric: one for one in attack.infer(of)}


def test_codes_with_a_pattern_a_patient_link_and_noise_does_not():
    found = _inferred(Linkage(), population())
    assert found["ED against ES: AUC"].value == 1
    assert found["ED against ES: right patient first"].value == 1
    assert found["ED against ES: right patient first"].chance == pytest.approx(1 / PATIENTS)
    assert found["neighbouring slices: AUC"].value > 0.99
    # On noise: the mean over populations is chance, within three standard errors of what its spread over them says.
    values = np.array(
        [_inferred(Linkage(), population(seed, "noise"))["ED against ES: AUC"].value for seed in range(20)]
    )
    assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(len(values)) + 0.01
    # The raw images are noise as well, whatever the codes say.
    assert abs(found["ED against ES: AUC"].raw - 0.5) < 0.35


def test_a_probe_finds_what_the_codes_say_and_no_more():
    found = _inferred(Attributes(), population(0, "noise", sick=True))
    assert set(found) == {"disease: accuracy"}  # nobody knows the sex
    assert found["disease: accuracy"].value == 1
    assert found["disease: accuracy"].chance == 0.5
    values = [_inferred(Attributes(), population(seed, "noise"))["disease: accuracy"].value for seed in range(20)]
    assert np.mean(values) < 0.65


def test_a_probe_is_scored_on_patients_it_did_not_see():
    # With more features than patients, any labels can be learned by heart; leaving one out shows that nothing was.
    draws = numpy_generator(0, "rows")
    rows, words = draws.standard_normal((12, 200)), ["a", "b"] * 6
    assert np.mean([one == other for one, other in zip(leave_one_out(rows, words), words, strict=True)]) < 0.8


def _system(people: Population, knows: np.ndarray):
    """A system that is certain and right on the slices where `knows`, and undecided elsewhere."""

    def predict(images: np.ndarray) -> np.ndarray:
        scores = np.full((len(images), 4, 16, 16), 0.25, np.float32)
        right = (np.arange(4)[None, :, None, None] == people.masks[:, None]).astype(np.float32)
        scores[knows] = 0.97 * right[knows] + 0.01 * (1 - right[knows])
        return scores

    return predict


def test_a_system_that_knows_its_members_gives_them_away_and_the_control_stays_at_chance():
    people = population()
    found = _inferred(Membership(), replace(people, predict=_system(people, people.member)))
    assert found["slices: AUC"].value == 1
    assert found["patients: AUC"].value == 1
    assert found["slices: TPR at 1 % FPR"].value == 1
    assert 0.2 < found["control, members against members: AUC"].value < 0.8


def test_a_test_that_sees_the_same_everywhere_tells_nothing():
    people = population()
    found = _inferred(Membership(), people)
    assert 0.2 < found["slices: AUC"].value < 0.8
    assert Membership().infer(replace(people, member=np.ones(len(people.member), bool))) == ()


def test_losses_are_the_mean_cross_entropy():
    scores = np.full((1, 4, 2, 2), 0.25, np.float32)
    assert losses(scores, np.zeros((1, 2, 2), np.uint8)) == pytest.approx([np.log(4)])


def test_pooling_averages_fields():
    picture = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    assert pooled(picture, 2).tolist() == [[2.5, 4.5, 10.5, 12.5]]
