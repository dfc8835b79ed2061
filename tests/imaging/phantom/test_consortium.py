"""The phantom is a release of M&Ms in every respect a reader can see, its hearts beat, its contrast follows Bloch."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.imaging.phantom import bssfp, consortium
from fedprivseg.imaging.phantom.heart import PATHOLOGIES, TURN, Heart, draw_heart, profile, right_profile

SEED = 11

Subject = tuple[dict[str, str], Path, np.ndarray, np.ndarray, np.ndarray]
"""Row of the table, folder, image, mask and affine."""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return consortium.write_phantom(tmp_path_factory.mktemp("phantom") / "release", 2, SEED, centres=(5, 4))


def table(release: Path) -> list[dict[str, str]]:
    with (release / consortium.TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def subjects(release: Path) -> list[Subject]:
    found = []
    for row in table(release):
        code = row["External code"]
        (image_path,) = release.rglob(f"{code}_sa.nii.gz")
        image = nib.Nifti1Image.from_filename(image_path)
        mask = nib.Nifti1Image.from_filename(image_path.with_name(f"{code}_sa_gt.nii.gz"))
        assert np.array_equal(image.affine, mask.affine)
        found.append((row, image_path.parent, np.asarray(image.dataobj), np.asarray(mask.dataobj), image.affine))
    return found


def test_layout_and_table_are_those_of_the_release(release: Path, subjects: list[Subject]) -> None:
    rows = table(release)
    # Two labelled subjects in each of two centres, one to train and one to test; centre 4 has one more without labels.
    assert [int(row["Centre"]) for row in rows].count(4) == 3
    assert [int(row["Centre"]) for row in rows].count(5) == 2
    assert tuple(rows[0]) == consortium.COLUMNS
    assert {(row["Centre"], row["Vendor"], row["VendorName"]) for row in rows} == {
        ("4", "C", "GE"),
        ("5", "D", "Canon"),
    }
    places = sorted(str(folder.parent.relative_to(release)) for _, folder, *_ in subjects)
    assert places == ["Testing"] * 2 + ["Training/Labeled"] * 2 + ["Training/Unlabeled"]
    for row, _, image, mask, _ in subjects:
        assert re.fullmatch(r"([A-Z]\d){3}", row["External code"])
        assert image.dtype == np.int16
        assert mask.dtype == np.uint8
        assert image.shape == mask.shape
        assert image.ndim == 4
        assert image.min() >= 0


def test_masks_are_filled_at_ed_and_es_only(subjects: list[Subject]) -> None:
    for row, folder, _, mask, _ in subjects:
        filled = [frame for frame in range(mask.shape[3]) if mask[..., frame].any()]
        if folder.parent.name == "Unlabeled":
            assert row["ED"] == row["ES"]
            assert filled == []
        else:
            assert filled == sorted({int(row["ED"]), int(row["ES"])})
            assert len(filled) == 2
            assert np.unique(mask).tolist() == [0, 1, 2, 3]


def test_the_stack_reaches_beyond_the_ventricles_and_is_oblique(subjects: list[Subject]) -> None:
    for row, folder, _, mask, affine in subjects:
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-5)
        assert np.abs(axes).max() < 0.99
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        assert spacing[0] == pytest.approx(spacing[1])
        assert 1.1 < spacing[0] < 1.6
        assert 7.99 < spacing[2] < 10.01
        if folder.parent.name != "Unlabeled":
            filled = np.flatnonzero(mask[..., int(row["ED"])].any(axis=(0, 1)))
            assert filled[0] > 0
            assert filled[-1] < mask.shape[2] - 1
            assert len(filled) >= 6


def test_the_heart_beats(subjects: list[Subject]) -> None:
    ratios = []
    for row, folder, _, mask, _ in subjects:
        if folder.parent.name == "Unlabeled":
            continue
        ed, es = mask[..., int(row["ED"])], mask[..., int(row["ES"])]
        assert (es == 1).sum() < 0.9 * (ed == 1).sum()
        assert (es == 3).sum() < 0.9 * (ed == 3).sum()
        ratios.append((es == 2).sum() / (ed == 2).sum())
    # Muscle is conserved; what the labels lose or win is a slice at the base, one in about eight.
    assert np.all(np.abs(np.array(ratios) - 1) < 0.2)
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_volumes_are_those_asked_for_in_every_phase(pathology: str) -> None:
    """Oracle: add up thin discs, from the shapes the painter draws."""
    heart = draw_heart(numpy_generator(SEED, pathology), pathology, 1.0)
    for phase in (0.0, 0.4, 1.0):
        now = heart.at(phase)
        height = (np.arange(4000) + 0.5) / 4000 * now.length
        area = np.pi * np.gradient(height)
        inner = now.inner * profile(height - now.tip, now.length - now.tip)
        outer = now.outer * profile(height, now.length)
        cavity = (area * inner**2).sum() / 1000 * np.mean(heart.outline[1] ** 2)
        whole = (area * outer**2).sum() / 1000 * np.mean(heart.outline[0] ** 2)
        assert cavity == pytest.approx(heart.cavity * (1 - phase * heart.ejected), rel=2e-3)
        assert whole - cavity == pytest.approx(heart.wall, rel=2e-3)
        edge = outer[:, None] * heart.outline[0]
        beyond = edge + now.depth * right_profile(height, now.length)[:, None] * heart.crescent
        right = ((beyond**2 - edge**2) / 2).mean(axis=1) * 2 * np.pi * np.gradient(height)
        assert right.sum() / 1000 == pytest.approx(heart.right * (1 - phase * heart.right_ejected), rel=5e-3)
        wall = now.outer * heart.outline[0] - now.inner * (heart.outline[1] * (1 - phase) + heart.outline[2] * phase)
        assert wall.min() > 3
    assert TURN.shape == heart.crescent.shape


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_both_ventricles_eject_the_same_volume(pathology: str) -> None:
    """What the right one pumps into the lungs comes back to the left one. Oracle: the right volume at ED and ES, from discs."""
    for index in range(60):
        heart = draw_heart(numpy_generator(SEED, pathology, index), pathology, 1.0)
        ends = [_right_volume(heart, phase) for phase in (0.0, 1.0)]
        assert ends[0] - ends[1] == pytest.approx(heart.cavity * heart.ejected, rel=0.01)
        assert 0.25 < heart.right_ejected <= 0.70
        assert heart.ejected <= 0.75


def _right_volume(heart: Heart, phase: float) -> float:
    """ml of the right cavity: the crescent beyond the left ventricle, disc by disc."""
    now = heart.at(phase)
    height = (np.arange(500) + 0.5) / 500 * now.length
    edge = now.outer * profile(height, now.length)[:, None] * heart.outline[0]
    beyond = edge + now.depth * right_profile(height, now.length)[:, None] * heart.crescent
    return float(((beyond**2 - edge**2) / 2).mean(axis=1).sum() * 2 * np.pi * now.length / 500 / 1000)


def test_normal_hearts_are_of_published_size() -> None:
    """Petersen et al., J Cardiovasc Magn Reson 19:18, 2017 (healthy adults of UK Biobank), means over both sexes: left
    end-diastolic volume 143 ml, right 154 ml, left mass 85 g; ejection fraction 58 % of men and 61 % of women.

    A volume varies by a tenth, so the mean of 60 has a standard error of 1.3 % (the right one's, which follows from two
    fractions and the left volume: sqrt(0.1^2 + 0.05^2 + 0.06^2) = 12.7 %, so 1.6 %); three of them are allowed.
    """
    hearts = [draw_heart(numpy_generator(SEED, "normal", index), "NOR", 1.0) for index in range(60)]
    left, right, mass = (np.array([value(heart) for heart in hearts]) for value in _SIZES)
    assert left.mean() == pytest.approx(143, rel=0.04)
    assert right.mean() == pytest.approx(154, rel=0.05)
    assert mass.mean() == pytest.approx(85, rel=0.04)
    assert np.mean([heart.ejected for heart in hearts]) == pytest.approx(0.595, abs=0.015)
    # The right one is larger where its fraction is smaller: 0.555 +- 6 % against 0.595 +- 5 %, 0.040 over 0.045, so in 81 %.
    assert 0.66 < np.mean(right > left) < 0.96


_SIZES: tuple[Callable[[Heart], float], ...] = (
    lambda heart: heart.cavity,
    lambda heart: heart.right,
    lambda heart: 1.05 * heart.wall,
)
"""Left volume in ml, right volume in ml, left mass in g (muscle weighs 1.05 g/ml)."""


def test_walls_are_never_thinner_than_two_millimetres() -> None:
    """An infarct's wall is the thinnest there is."""
    for pathology in PATHOLOGIES:
        for index in range(60):
            heart = draw_heart(numpy_generator(SEED, pathology, index), pathology, 1.0)
            for phase in (0.0, 1.0):
                now = heart.at(phase)
                inner = heart.outline[1] * (1 - phase) + heart.outline[2] * phase
                assert (now.outer * heart.outline[0] - now.inner * inner).min() > 2


def test_blood_is_brighter_than_muscle_and_lung_is_dark(subjects: list[Subject]) -> None:
    for row, folder, image, mask, _ in subjects:
        if folder.parent.name == "Unlabeled":
            continue
        ed = int(row["ED"])
        blood, muscle, right = (np.median(image[..., ed][mask[..., ed] == label]) for label in (1, 2, 3))
        # Six genuine subjects of the release lie at 2.4 to 8.9 (left blood over muscle).
        assert 2 < blood / muscle < 6
        assert 2 < right / muscle < 6
        assert np.percentile(image[..., ed], 25) < 0.15 * blood


def test_same_arguments_same_bytes_whatever_the_other_centres(release: Path, tmp_path: Path) -> None:
    alone = consortium.write_phantom(tmp_path / "alone", 2, SEED, centres=(5,))
    files = sorted(path.relative_to(alone) for path in alone.rglob("*.nii.gz"))
    assert len(files) == 4
    for file in files:
        assert (alone / file).read_bytes() == (release / file).read_bytes()


def test_another_seed_is_another_consortium() -> None:
    one, other = (next(consortium._people(seed, 5, 2, 2)) for seed in (1, 2))
    assert one.code != other.code
    image, mask, affine = consortium.draw_subject(1, one, 2)
    changed_image, changed_mask, changed_affine = consortium.draw_subject(2, one, 2)
    assert image.shape[:2] == changed_image.shape[:2]
    assert image.shape != changed_image.shape or not np.array_equal(image, changed_image)
    assert mask.shape != changed_mask.shape or not np.array_equal(mask, changed_mask)
    assert not np.array_equal(affine, changed_affine)


def test_codes_are_unique_and_splits_add_up() -> None:
    people = [person for centre in consortium.CENTRES for person in consortium._people(SEED, centre, 30, 8)]
    assert len({person.code for person in people}) == len(people) == 5 * 30 + 15
    count = [person.folder for person in people if person.centre == 1].count
    assert (count("Training/Labeled"), count("Validation"), count("Testing")) == (17, 3, 10)
    assert {person.pathology for person in people} == set(PATHOLOGIES)


@pytest.mark.parametrize("frames", range(2, 31))
def test_contraction_is_full_at_es_and_none_at_ed(frames: int) -> None:
    phases = consortium._phases(frames)
    assert phases[0] == 0
    assert int(phases.argmax()) == consortium._systole(frames) > 0
    assert phases.max() == pytest.approx(1)
    assert phases.min() >= 0


def test_the_global_random_state_is_untouched() -> None:
    before, state = random.getstate(), np.random.get_state(legacy=False)
    consortium.draw_subject(3, next(consortium._people(3, 5, 2, 2)), 2)
    assert random.getstate() == before
    after = np.random.get_state(legacy=False)
    assert repr(after) == repr(state)
    assert np.array_equal(after["state"]["key"], state["state"]["key"])


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(FolderError, match="already holds something"):
        consortium.write_phantom(tmp_path, 2, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_bad_numbers_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="1 subjects"):
        consortium.write_phantom(tmp_path / "a", 1, 0)
    with pytest.raises(RequestError, match=r"\[7\].*1, 2, 3, 4, 5"):
        consortium.write_phantom(tmp_path / "a", 2, 0, centres=(1, 7))
    with pytest.raises(RequestError, match="1 frames"):
        consortium.write_phantom(tmp_path / "a", 2, 0, frames=1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert (done, total) == (1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consortium.write_phantom(tmp_path / "release", 2, 0, centres=(5,), frames=2, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def bloch(t1: float, t2: float, tr: float, te: float, flip: float, offset: float) -> complex:
    """Transverse magnetisation at the echo, by brute force: 2 x 2^14 pulses of alternating sign on (Mx, My, Mz, 1)."""

    def pulse(angle: float) -> np.ndarray:
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        return turn

    def wait(time: float) -> np.ndarray:
        angle = 2 * np.pi * offset * time / 1000
        step = np.diag([np.exp(-time / t2), np.exp(-time / t2), np.exp(-time / t1), 1.0])
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        step[2, 3] = 1 - np.exp(-time / t1)
        return step @ turn

    alpha = np.deg2rad(flip)
    cycle = wait(tr) @ pulse(alpha) @ wait(tr) @ pulse(-alpha)
    state = np.linalg.matrix_power(cycle, 2**14) @ np.array([0.0, 0.0, 1.0, 1.0])
    x, y, *_ = wait(te) @ pulse(-alpha) @ state
    return complex(x, y)


@pytest.mark.parametrize("name", bssfp.TISSUES)
@pytest.mark.parametrize("offset", [0.0, 60.0, -220.0, 440.0])
def test_steady_state_against_a_bloch_simulation(name: str, offset: float) -> None:
    tissue = bssfp.TISSUES[name]
    for field in (0, 1):
        protocol = (tissue.t1[field], tissue.t2[field], 3.2, 1.6, 60.0)
        expected = bloch(*protocol, offset)
        reference = bloch(*protocol, 0.0)
        found = bssfp.steady_state(*protocol, offset)
        assert abs(found) == pytest.approx(abs(expected), rel=1e-6)
        # The same phase against water. The axis of the pulse is a convention, so divide it out.
        assert found / bssfp.steady_state(*protocol) == pytest.approx(expected / reference, rel=1e-6, abs=1e-9)


def test_steady_state_limit_of_short_tr() -> None:
    """TR, TE << T2: sin a / (1 + cos a + (1 - cos a) T1/T2). At a = 90 degrees and T1/T2 = 4 that is 1/5."""
    assert bssfp.steady_state(1000.0, 250.0, 1e-3, 0.0, 90.0) == pytest.approx(0.2, rel=1e-4)


def test_fat_is_bright_and_opposed_to_water_at_every_centre() -> None:
    for centre in consortium.CENTRES.values():
        signals = bssfp.tissue_signals(centre.sequence)
        assert signals["blood"] == 1
        assert signals["fat"] < -0.45
        assert 0.2 < signals["myocardium"] < 0.4
        assert 0 < signals["lung"] < 0.1


def test_noise_is_rician() -> None:
    """The magnitude of complex noise of deviation s has mean s sqrt(pi/2) and deviation s sqrt(2 - pi/2)."""
    sequence = bssfp.Sequence(1.5, 3.0, 1.5, 60.0, snr=20.0, flatness=0.0, detail=0.8, gain=10000.0)
    image = bssfp.acquire(np.zeros((12, 160, 160), np.float32), sequence, numpy_generator(SEED, "noise"))
    deviation = 10000.0 / 20.0
    assert image.mean() == pytest.approx(deviation * np.sqrt(np.pi / 2), rel=0.01)
    assert image.std() == pytest.approx(deviation * np.sqrt(2 - np.pi / 2), rel=0.02)
    flat = bssfp.acquire(np.ones((12, 160, 160), np.float32), sequence, numpy_generator(SEED, "noise"))
    # Rice at signal A >> s: mean A + s^2 / (2 A) = 10000 + 12.5.
    assert flat.mean() == pytest.approx(10012.5, rel=2e-3)


def test_coils_are_stronger_near_the_chest_wall_and_one_at_the_heart() -> None:
    p, q = np.zeros((3, 1), np.float32), np.array([[-60.0], [0.0], [60.0]], np.float32)
    coils = np.array([[0.0, -100.0]])
    field = bssfp.coil_field(p, q, coils, 90.0, 0.0)[:, 0]
    assert field[1] == pytest.approx(1)
    # One loop, on its axis: ((1 + (100/90)^2) / (1 + (40/90)^2))^(3/2) = (2.2346 / 1.1975)^1.5 = 2.549.
    assert field[0] == pytest.approx(2.549, rel=1e-3)
    assert field[2] < 1
    assert np.all(bssfp.coil_field(p, q, coils, 90.0, 1.0) == 1)
