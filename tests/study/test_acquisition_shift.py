"""Simulated scanners: the same seed is the same scanner, masks and geometry stay, and each number does what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT, tiny_settings

from fedprivseg.core.comparison_config import ShiftConfig
from fedprivseg.core.config import SiteConfig
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.results import read_result
from fedprivseg.core.task import default_task
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.study import acquisition_shift
from fedprivseg.study.acquisition_shift import Shift, draw_shifts, shift_notes, shifted, shifted_release
from fedprivseg.study.run import load_scenario, release_folder, simulate

QUICKSTART = ROOT / "simulations" / "quickstart.toml"
LOAD = partial(MnMs().load, task=default_task())
SPACING = (1.5, 1.5, 8.0)
PLAIN = Shift(gamma=1.0, bias=0.0, field=(1.0, 0, 0, 0, 0), blur_mm=0.0, noise=0.0, resolution=1.0)
SITES = [SiteConfig(name=f"centre{n}", centre=n) for n in (1, 2, 3)]
STRONG = ShiftConfig(strength="strong")


def a_disc(size: int = 64) -> np.ndarray:
    """A bright disc on a dim ground with a ramp in it, (size, size, 2) float32."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    slice_ = 100 + 300 * (x * x + y * y < 0.4) + 50 * x
    return np.stack([slice_, slice_ + 20], axis=2).astype(np.float32)


def seen(**changes) -> np.ndarray:
    return shifted(a_disc(), SPACING, replace(PLAIN, **changes), np.random.default_rng(0))


@pytest.fixture
def strong(phantom):
    return load_scenario(QUICKSTART, [*tiny_settings(phantom), "shift.strength=strong"])


def drawn(config: ShiftConfig, seed: int) -> list[Shift]:
    return [*draw_shifts(config, seed, SITES).values()]


def test_each_site_takes_another_part_of_every_range():
    lots = [drawn(STRONG, seed) for seed in range(30)]
    assert lots == [drawn(STRONG, seed) for seed in range(30)]
    assert len({each for lot in lots for each in lot}) == 90
    for name in ShiftConfig.MEASURES:
        low, high = STRONG.drawn_from(name)
        values = np.array([[getattr(each, name) for each in lot] for lot in lots])
        if name == "gamma":
            low, high, values = np.log(low), np.log(high), np.log(values)
        thirds = np.floor(3 * (values - low) / (high - low))
        np.testing.assert_array_equal(np.sort(thirds, axis=1), [[0, 1, 2]] * 30)
        assert len({*map(tuple, thirds)}) == 6  # every order of the sites comes up
    assert {each.noise for each in drawn(ShiftConfig(strength="strong", noise=(0.02, 0.02)), 0)} == {0.02}
    assert draw_shifts(STRONG, 0, SITES[::-1]) == draw_shifts(STRONG, 0, SITES)


def test_a_scanner_that_differs_in_nothing_changes_nothing():
    image = a_disc()
    inside = image >= np.percentile(image, 1)
    np.testing.assert_allclose(seen()[inside], image[inside], rtol=1e-4)


def test_each_number_does_what_it_says():
    image, plain = a_disc(), seen()
    low, high = np.percentile(image, (1, 99))
    middle = np.abs((plain - low) / (high - low) - 0.5) < 0.4  # gamma leaves both ends where they are
    assert seen(gamma=2.0)[middle].mean() < plain[middle].mean() < seen(gamma=0.5)[middle].mean()
    # A bias of 0.5 along x: exp(x / 2), and nothing else.
    across = np.broadcast_to(np.linspace(-1, 1, 64)[:, None, None], plain.shape)
    bright = (plain - low) / (high - low) > 0.5
    np.testing.assert_allclose(
        (seen(bias=0.5) - low)[bright] / (plain - low)[bright], np.exp(across[bright] / 2), rtol=1e-3
    )
    steps = [np.abs(np.diff(each, axis=0)).max() for each in (plain, seen(blur_mm=2.0), seen(resolution=3.0))]
    assert steps[1] < 0.6 * steps[0]
    assert steps[2] < 0.6 * steps[0]
    # On the bright disc, far above the noise, Rician noise is Gaussian with its standard deviation.
    residual = (seen(noise=0.03) - plain)[24:40, 24:40] / (high - low)
    assert residual.std() == pytest.approx(0.03, rel=0.1)


def test_a_smaller_matrix_holds_no_higher_frequencies():
    """Half the matrix: nothing is left beyond a quarter of a cycle a pixel, and below it all is as it was."""
    image = a_disc().astype(np.float64)
    before, after = (np.fft.fft2(each[..., 0]) for each in (image, acquisition_shift._acquired(image, 2.0)))
    held = np.abs(np.fft.fftfreq(64)) <= 0.25
    inside = np.logical_and.outer(held, held)
    np.testing.assert_allclose(after[inside], before[inside], atol=1e-6)
    assert np.abs(after[~inside]).max() < 1e-6


def test_a_frame_without_a_picture_stays():
    blank = np.full((16, 16, 2), 7.0)
    np.testing.assert_array_equal(shifted(blank, SPACING, drawn(STRONG, 0)[0], np.random.default_rng(0)), 7)


def test_images_change_and_masks_geometry_and_people_do_not(phantom, strong):
    copy = release_folder(strong)
    before, after = MnMs().read(phantom), MnMs().read(copy)
    assert after.faults == ()
    assert [(one.code, one.frames) for one in after.subjects] == [(one.code, one.frames) for one in before.subjects]
    for one, other in zip(before.subjects, after.subjects, strict=True):
        header, now = nib.load(one.image).header, nib.load(other.image).header
        for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units", "dim"):
            np.testing.assert_array_equal(header[field], now[field])
        for time, volume in LOAD(one).items():
            np.testing.assert_array_equal(volume.mask, LOAD(other)[time].mask)
            changed = LOAD(other)[time].image
            assert changed.shape == volume.image.shape
            likeness = np.corrcoef(volume.image.ravel(), changed.ravel())[0, 1]
            assert 0.5 < likeness < 0.999  # another scanner, and the same heart
    assert json.loads((copy / acquisition_shift.RECORD).read_text()).keys() == {"1", "2", "3"}


def test_the_same_scenario_has_the_same_copy_bit_by_bit(phantom, strong, tmp_path, monkeypatch):
    first = release_folder(strong)
    assert release_folder(strong) == first
    monkeypatch.setenv("FEDPRIVSEG_CACHE", str(tmp_path))
    again = release_folder(strong)
    assert again.name == first.name
    paths = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert paths == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((first / path).read_bytes() == (again / path).read_bytes() for path in paths)
    assert not [path for path in tmp_path.iterdir() if ".draft" in path.name]
    other = load_scenario(QUICKSTART, [*tiny_settings(phantom), "shift.strength=strong", "data.seed=1"])
    assert shifted_release(phantom, other, MnMs().read(phantom).subjects, MnMs.limits).name != first.name


def test_strength_none_is_no_section(phantom):
    without, stated = (
        load_scenario(QUICKSTART, [*tiny_settings(phantom), *more]) for more in ([], ["shift.strength=none"])
    )
    assert without.sha256 == stated.sha256
    assert release_folder(stated) == phantom.resolve()
    assert shift_notes(stated) == ()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("shift.noise=[0.1, 0.2]", 'strength is "none"'),
        ("shift={strength='mild', gamma=[2.0, 1.0]}", "lowest, highest"),
        ("shift={strength='mild', resolution=[0.5, 1.0]}", "from 1 to 16"),
        ("shift.strength=huge", "strength"),
    ],
)
def test_ranges_that_mean_nothing_are_refused(phantom, setting, says):
    with pytest.raises(ScenarioError, match=says):
        load_scenario(QUICKSTART, [*tiny_settings(phantom), setting])


def test_a_run_says_what_was_drawn_and_differs_in_its_images(phantom, tmp_path):
    brief = ["method.name=local-only", "method.parameters.rounds=1", "method.parameters.local_steps=1"]
    settings = [*tiny_settings(phantom), *brief, "shift={strength='strong'}"]
    scenario = load_scenario(QUICKSTART, settings)
    result = simulate(scenario, tmp_path / "run")
    told = shift_notes(scenario)[0]
    assert told in result.notes
    assert told.count("gamma") == 3
    assert read_result(tmp_path / "run").scenario["shift"]["strength"] == "strong"
    assert scenario.sha256 != load_scenario(QUICKSTART, [*tiny_settings(phantom), *brief]).sha256
    assert simulate(scenario, tmp_path / "run").notes == result.notes  # finished: read, not repeated
