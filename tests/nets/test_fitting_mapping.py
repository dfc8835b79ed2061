"""The server's fit: on codes alone, for sites with languages of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fedprivseg.core.seeds import building, numpy_generator
from fedprivseg.nets.descent import Schedule
from fedprivseg.nets.fitting_mapping import Backbone, SiteMapping, build_mapping, fit_mapping


@dataclass(frozen=True)
class _Held:
    """Codes in memory."""

    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self.codes[indices]


def _languages() -> tuple[dict[str, _Held], dict[str, _Held]]:
    """Two sites that see the same kind of thing (coarse maps) and say it in their own words: each site
    mixes the channels by matrices of its own and puts them on a scale of its own."""
    images, masks = {}, {}
    for site, scale in (("a", 1.0), ("b", 20.0)):
        draws = numpy_generator(0, site)
        things = np.repeat(np.repeat(draws.standard_normal((96, 4, 4, 4)), 2, axis=2), 2, axis=3)
        say, write = draws.standard_normal((2, 4, 4))
        images[site] = _Held(np.einsum("nchw,cd->ndhw", things, say).astype(np.float16))
        masks[site] = _Held((scale * np.einsum("nchw,cd->ndhw", things, write) + scale).astype(np.float16))
    return images, masks


def _fit(
    steps: int, adapters: bool, backbone: Backbone = "unet", sites: tuple[str, ...] = ("a", "b")
) -> tuple[SiteMapping, float]:
    images, masks = _languages()
    with building(0, "mapping"):
        mapping = build_mapping(sites, 4, 4, backbone=backbone, width=16, levels=2, adapters=adapters)
    loss = fit_mapping(mapping, images, masks, Schedule(steps=steps, rate=1e-2, half=False), 0, ("mapping",))
    return mapping, loss


def test_each_site_is_understood_in_its_own_language_and_no_other() -> None:
    mapping, loss = _fit(200, adapters=True)
    assert loss < 0.45
    images, masks = _languages()
    for site, other in (("a", "b"), ("b", "a")):
        # Back on the scale of the site's own mask codes, which differ by a factor of 20.
        truth = masks[site].codes.astype(np.float64)
        with torch.no_grad():
            heard = mapping(site, torch.from_numpy(images[site].codes).float()).numpy()
            misheard = mapping(other, torch.from_numpy(images[site].codes).float()).numpy()
        assert np.square(heard - truth).mean() < 0.5 * truth.var()
        assert np.square(misheard - truth).mean() > 0.8 * truth.var()


@pytest.mark.parametrize("backbone", ["over-complete", "unet"])
@pytest.mark.parametrize("adapters", [True, False])
def test_the_same_seed_gives_the_same_mapping(backbone: Backbone, adapters: bool) -> None:
    before = torch.random.get_rng_state()
    first, again = _fit(3, adapters, backbone)[0].state_dict(), _fit(3, adapters, backbone)[0].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_statistics_are_those_of_the_codes_and_are_kept_with_the_weights() -> None:
    _, masks = _languages()
    mapping, _ = _fit(1, adapters=True)
    state = mapping.state_dict()
    codes = masks["b"].codes.astype(np.float64)
    np.testing.assert_allclose(state["mask_mean"][1].flatten(), codes.mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(state["mask_deviation"][1].flatten(), codes.std(axis=(0, 2, 3)), rtol=1e-4)
    assert state["image_mean"].shape == (2, 4, 1, 1)


def test_a_dead_channel_divides_by_nothing() -> None:
    images, masks = _languages()
    images["a"].codes[:, 2] = 0
    mapping = build_mapping(("a",), 4, 4, backbone="unet", width=8, levels=1)
    loss = fit_mapping(mapping, images, masks, Schedule(steps=2), 0, ("mapping",))
    assert np.isfinite(loss)
    assert float(mapping.image_deviation[0, 2]) == 1.0


def test_rows_that_do_not_pair_and_unknown_sites_are_refused() -> None:
    images, masks = _languages()
    mapping = build_mapping(("a", "b"), 4, 4, backbone="unet", width=8, levels=1)
    with pytest.raises(ValueError, match="site b has 96 image codes and 5 mask codes"):
        fit_mapping(mapping, images, {**masks, "b": _Held(masks["b"].codes[:5])}, Schedule(steps=1), 0, ("mapping",))
    with pytest.raises(ValueError, match="one for each of a, b"):
        mapping("c", torch.zeros(1, 4, 8, 8))
