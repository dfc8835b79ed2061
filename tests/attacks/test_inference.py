"""Inferences about patients on populations whose answer is known: everything can be inferred, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from fedprivseg.attacks.attributes import Attributes, leave_one_out
from fedprivseg.attacks.base import Population, pooled
from fedprivseg.attacks.code_lookup import CodeLookup
from fedprivseg.attacks.linkage import Linkage
from fedprivseg.attacks.member_statistics import MOST_CHOICES, member_metrics, permutation_p
from fedprivseg.attacks.membership import Membership, confidence, likelihood_ratio, losses
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.protections.keyed import orthogonal
from fedprivseg.testing.attack_contracts import PATIENTS, population


def _inferred(attack, of):
    return {one.metric: one for one in attack.infer(of)}


def test_codes_with_a_pattern_a_patient_link_and_noise_does_not():
    found = _inferred(Linkage(), population())
    volumes = "told which form a volume, ED against ES"
    assert found[f"{volumes}: AUC"].value == 1
    assert found[f"{volumes}: right patient first"].value == 1
    assert found[f"{volumes}: right patient first"].chance == pytest.approx(1 / PATIENTS)
    pairs = found["slices, all pairs: AUC"]
    assert pairs.value > 0.99
    assert pairs.low <= pairs.value <= pairs.high
    assert found["slices: nearest is of the same patient"].value == 1
    # A patient has 8 of 80 slices: of the 79 others 7 are its own.
    assert found["slices: nearest is of the same patient"].chance == pytest.approx(7 / 79)
    # On noise: the mean over populations is chance, within three standard errors of what its spread over them says.
    for metric in (f"{volumes}: AUC", "slices, all pairs: AUC"):
        values = np.array([_inferred(Linkage(), population(seed, "noise"))[metric].value for seed in range(20)])
        assert abs(values.mean() - 0.5) < 3 * values.std() / np.sqrt(len(values)) + 0.01
    # The raw images are noise as well, whatever the codes say.
    assert abs(found[f"{volumes}: AUC"].raw - 0.5) < 0.35


def test_the_order_of_slices_tells_linkage_nothing():
    """Slices told in another order are linked as well: no place speaks."""
    whole = population()
    order = numpy_generator(0, "order").permutation(len(whole.subjects))
    fields = ("images", "masks", "subjects", "phases", "places", "member", "codes")
    other = replace(whole, **{name: getattr(whole, name)[order] for name in fields})
    one, again = _inferred(Linkage(), whole), _inferred(Linkage(), other)
    for metric in ("slices, all pairs: AUC", "slices: nearest is of the same patient"):
        assert again[metric].value == pytest.approx(one[metric].value)


def test_what_links_only_by_where_the_patient_lay_is_gone_when_hearts_are_centred():
    """One heart, the same in everybody, at a place that is each patient's own."""
    people = population()
    images, masks = np.zeros((len(people.images), 48, 48), np.float32), np.zeros((len(people.images), 48, 48), np.uint8)
    for subject in range(PATIENTS):
        down, right = divmod(subject, 5)
        own = people.subjects == subject
        place = own, slice(16 + 8 * down, 20 + 8 * down), slice(14 + 3 * right, 18 + 3 * right)
        images[place] = masks[place] = 1
    draws = numpy_generator(0, "noise")
    images += 0.01 * draws.standard_normal(images.shape).astype(np.float32)
    found = _inferred(Linkage(), replace(people, images=images, masks=masks))
    assert found["slices, all pairs: AUC"].raw > 0.99
    assert abs(found["control, images centred on the structures, all pairs: AUC"].value - 0.5) < 0.15


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
    # Of the 210 choices of 6 of 10 patients one is as good.
    assert found["slices: AUC"].p == pytest.approx(1 / 210)
    assert 0.3 < found["control, nets that saw nobody: AUC"].value < 0.7
    # The others have 32 slices: a rate below 1/32 cannot be told, and is not.
    assert not any("TPR" in metric for metric in found)


def test_the_likelihood_ratio_is_the_one_sided_test_of_each_slice():
    """Against scipy's Gaussian: the order of the evidence is that of the probability of a lower confidence."""
    draws = numpy_generator(0, "confidences")
    out, system = draws.normal(2, 0.5, (16, 40)) + draws.normal(0, 3, 40), draws.normal(2, 3, 40)
    below = norm.cdf(system, out.mean(axis=0), out.std(axis=0, ddof=1))
    evidence = likelihood_ratio(system, out)
    sure = (below > 1e-12) & (below < 1 - 1e-12)
    assert sure.sum() > 10
    assert (np.argsort(evidence[sure]) == np.argsort(below[sure])).all()


def test_large_slices_are_halved_together_with_what_the_system_says_of_them():
    """The same answer whether slices are small or each pixel is four."""
    small, names = population(), ("slices: AUC", "patients: AUC")
    repeat = lambda values: np.repeat(np.repeat(values, 4, axis=-2), 4, axis=-1)  # noqa: E731
    scores = numpy_generator(0, "scores").random((len(small.images), 4, 32, 32)).astype(np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    at_32 = replace(
        small,
        images=np.repeat(np.repeat(small.images, 2, axis=1), 2, axis=2),
        masks=np.repeat(np.repeat(small.masks, 2, axis=1), 2, axis=2),
        predict=lambda images: scores,
    )
    at_32 = replace(at_32, elsewhere=(at_32.images[:16], at_32.masks[:16]))
    at_64 = replace(
        small,
        images=repeat(small.images),
        masks=repeat(small.masks),
        elsewhere=(repeat(small.images[:16]), repeat(small.masks[:16])),
        predict=lambda images: np.repeat(np.repeat(scores, 2, axis=2), 2, axis=3),
    )
    one, other = _inferred(Membership(), at_32), _inferred(Membership(), at_64)
    assert [one[name].value for name in names] == pytest.approx([other[name].value for name in names])


def test_confidence_is_the_logit():
    loss = np.array([0.01, 0.5, 3.0])
    assert confidence(loss) == pytest.approx(np.log(np.exp(-loss) / (1 - np.exp(-loss))))


def test_whoever_knows_the_image_finds_the_code_of_a_member_and_its_nearest_otherwise():
    """Members' codes are at distance 0; where codes of other pictures are sent, nothing is found."""
    people = population()
    found = _inferred(CodeLookup(), people)
    assert found["image codes, slices: AUC"].value == 1
    assert found["image codes, patients: AUC"].value == 1
    other = population(1).images
    values = _inferred(CodeLookup(), replace(people, trained={"images": other[:, None]}))
    assert 0.2 < values["image codes, slices: AUC"].value < 0.8
    masks = (people.masks[people.member, None] == np.arange(1, 4)[:, None, None]).astype(np.float32)
    both = replace(
        people,
        trained={**people.trained, "masks": masks},
        query={**people.query, "masks": lambda given: given},
    )
    # Every mask is the same here: none tells a member.
    assert _inferred(CodeLookup(), both)["mask codes, knowing the mask, slices: AUC"].value == 0.5


@pytest.mark.parametrize(("others", "rates"), [(96, set()), (100, {"1 %"}), (1000, {"1 %", "0.1 %"})])
def test_a_rate_is_told_only_where_one_slice_is_no_more_than_it(others, rates):
    draws = numpy_generator(0, "rates")
    member = np.arange(40 + others) < 40
    found = member_metrics("", draws.standard_normal(len(member)), member, np.arange(len(member)) // 4, 0)
    assert {one.metric.split("TPR at ")[1].removesuffix(" FPR") for one in found if "TPR" in one.metric} == rates
    assert all(one.low <= one.value <= one.high for one in found if "AUC" in one.metric)


def test_another_key_hides_values_and_not_lengths():
    """Codes of four channels, turned in every cell by the release's matrix; whoever asks is answered under another."""
    people = population()
    release, other = (orthogonal(4, numpy_generator(0, name)) for name in ("release", "other"))

    def under(matrix, images):
        return np.einsum("ij,njhw->nihw", matrix, images.reshape(len(images), 4, 8, -1)).astype(np.float32)

    keyed = replace(
        people,
        trained={"images": under(release, people.images[people.member])},
        query={"images": lambda images: under(release, images)},
        query_elsewhere={"images": lambda images: under(other, images)},
    )
    found = _inferred(CodeLookup(), keyed)
    assert found["image codes, slices: AUC"].value == 1
    assert 0.2 < found["image codes, asked under another key, slices: AUC"].value < 0.8
    assert found["image codes, under another key by the lengths of cells, slices: AUC"].value == 1


def test_p_values_of_chance_are_uniform_and_never_zero():
    """Exact: under exchange of patients at most a share a of the p values is at or below a."""
    values = []
    for seed in range(200):
        draws = numpy_generator(seed, "null")
        rows = [draws.standard_normal(3) + draws.standard_normal() for _ in range(8)]
        values.append(permutation_p(rows, np.arange(8) < 4, draws))
    assert min(values) >= 1 / 70
    for level in (0.1, 0.3, 0.5):
        # Three standard deviations of 200 draws.
        assert np.mean(np.array(values) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 200)
    many = [np.array([float(place)]) for place in range(40)]
    assert permutation_p(many, np.arange(40) >= 20, numpy_generator(0, "many")) == 1 / MOST_CHOICES


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
