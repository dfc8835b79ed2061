"""The over-complete segmentation network against section 2.3 of Chen et al. 2024."""

import pytest
import torch

from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.mapping import PYRAMID, OverComplete, PyramidPooling


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch_generator(0, "test"))


def test_the_pyramid_has_the_levels_of_the_paper_and_keeps_the_size() -> None:
    assert PYRAMID == (1, 3, 5, 7)
    ppm = PyramidPooling(16)
    pooled: list[tuple[int, ...]] = []
    for level in ppm.levels:
        level.register_forward_hook(lambda _m, _i, out: pooled.append(tuple(out.shape)))
    assert ppm(_noise(2, 16, 8, 10)).shape == (2, 16, 8, 10)
    assert pooled == [(2, 4, cells, cells) for cells in PYRAMID]


def test_the_pyramid_sees_where_things_are() -> None:
    # A pyramid that only averaged globally would give the same pooled features for shuffled positions: look at them
    # alone, by silencing the 3x3 path of the input.
    with building(0, "test"):
        ppm = PyramidPooling(8).eval()
    with torch.no_grad():
        ppm.fuse[0].weight[:, :8] = 0
    features = _noise(1, 8, 8, 8)
    order = torch.randperm(64, generator=torch_generator(0, "order"))
    shuffled = features.flatten(2)[..., order].view_as(features)
    with torch.no_grad():
        before, after = ppm(features), ppm(shuffled)
    assert (before - after.flatten(2)[..., order.argsort()].view_as(before)).abs().max() > 1e-3
    assert before.std(dim=(2, 3)).max() > 1e-3, "pooled features are constant over the map"


def test_the_pyramid_reaches_across_the_whole_code() -> None:
    with building(0, "test"):
        ppm = PyramidPooling(32).eval()
    features = _noise(1, 32, 16, 16).requires_grad_()
    ppm(features)[0, :, 0, 0].sum().backward()
    assert features.grad is not None
    assert features.grad[0, :, -1, -1].abs().max() > 0


@pytest.mark.parametrize(("channels", "side"), [(128, 8), (32, 16), (8, 32)])
def test_inner_features_are_larger_than_input_and_output(channels: int, side: int) -> None:
    net = OverComplete(channels, channels, width=32, levels=2).eval()
    sides: list[int] = []
    for stage in [*net.ups, *net.downs]:
        stage.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[-1]))
    assert net(_noise(2, channels, side, side)).shape == (2, channels, side, side)
    assert sides == [2 * side, 4 * side, 2 * side, side]


def test_every_parameter_learns() -> None:
    with building(0, "test"):
        net = OverComplete(8, 8, width=16)
    net(_noise(2, 8, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_width_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        OverComplete(8, 8, width=20, levels=3)
