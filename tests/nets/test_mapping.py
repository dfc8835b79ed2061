"""The over-complete segmentation network against section 2.3 of Chen et al. 2024."""

from collections.abc import Mapping

import pytest
import torch
from torch.nn import functional

from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.choices import Skips
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


def test_a_level_of_more_cells_than_the_code_shows_nothing_new() -> None:
    # Of 6 cells, a level of 7 has single cells; adaptive regions are floor(i * 6 / 7) to ceil((i + 1) * 6 / 7).
    row = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 6, 6)
    assert functional.adaptive_avg_pool2d(row, 7)[0, 0, 0].tolist() == [0, 0.5, 1.5, 2.5, 3.5, 4.5, 5]
    assert PyramidPooling(8).eval()(_noise(1, 8, 6, 6)).shape == (1, 8, 6, 6)


@pytest.mark.parametrize("skips", ["add", "concatenate"])
@pytest.mark.parametrize(("channels", "side", "levels"), [(128, 6, 4), (32, 16, 2), (8, 32, 1)])
def test_inner_features_are_larger_than_input_and_output(channels: int, side: int, levels: int, skips: Skips) -> None:
    net = OverComplete(channels, channels, width=32, levels=levels, skips=skips).eval()
    shapes: list[tuple[int, int]] = []
    for stage in [*net.ups, *net.downs]:
        stage.register_forward_hook(lambda _m, _i, out: shapes.append((out.shape[1], out.shape[-1])))
    assert net(_noise(2, channels, side, side)).shape == (2, channels, side, side)
    up = [(32 >> level, side << level) for level in range(1, levels + 1)]
    down = [(32 >> level - 1, side << level) for level in range(levels, 0, -1)]
    assert shapes == up + down, "a decoder stage convolves on the larger grid, and pools afterwards"


def test_the_paper_has_the_four_stages_of_table_2() -> None:
    net = OverComplete(128, 128)
    assert [stage[0].in_channels for stage in net.ups] == [128, 64, 32, 16]
    assert [stage[-3].out_channels for stage in net.ups] == [64, 32, 16, 8]
    assert [stage[0].in_channels for stage in net.downs] == [8, 16, 32, 64]
    assert [stage[-3].out_channels for stage in net.downs] == [16, 32, 64, 128]


def _twice(state: Mapping[str, torch.Tensor], name: str, features: torch.Tensor) -> torch.Tensor:
    """[Conv, BN, ReLU] x 2 written out, in evaluation mode."""
    for place in (0, 3):
        features = functional.conv2d(features, state[f"{name}.{place}.weight"], padding=1)
        mean, variance, scale, shift = (
            state[f"{name}.{place + 1}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        features = ((features - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp_min(0)
    return features


@pytest.mark.parametrize("skips", ["add", "concatenate"])
def test_it_computes_what_section_2_3_says(skips: Skips) -> None:
    with building(0, "test"):
        net = OverComplete(8, 6, width=16, levels=2, skips=skips)
    net(_noise(4, 8, 8, 8))  # statistics of its batch norms
    net.eval()
    state = net.state_dict()
    double = torch.nn.Upsample(scale_factor=2, mode="bilinear")
    join = torch.add if skips == "add" else lambda one, other: torch.cat([one, other], dim=1)
    code = _noise(2, 8, 8, 8)
    with torch.no_grad():
        first = net.enter[1](_twice(state, "enter.0", code))
        second = _twice(state, "ups.0", double(first))
        largest = _twice(state, "ups.1", double(second))
        back = join(functional.max_pool2d(_twice(state, "downs.0", largest), 2), second)
        back = join(functional.max_pool2d(_twice(state, "downs.1", back), 2), first)
        expected = functional.conv2d(net.leave[0](back), state["leave.1.weight"], state["leave.1.bias"])
        torch.testing.assert_close(net(code), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("levels", "cells"), [(1, 7), (2, 8), (3, 9), (4, 9)])
def test_each_further_level_reaches_half_as_far_again(levels: int, cells: int) -> None:
    # In cells of the code, from one to the farthest that it depends on, without the pyramids, which see all of it: two
    # convolutions and the fusion before, the fusion after: 4. On the grid that is 2**k times as fine: four convolutions of
    # 1 / 2**k each, and one neighbour of the coarser grid in the enlargement: 6 / 2**k in all. So floor(4 + 3 + 1.5 + ...).
    with building(0, "test"):
        net = OverComplete(4, 4, width=16, levels=levels).eval().double()
    for pyramid in (net.enter[1], net.leave[0]):
        with torch.no_grad():
            pyramid.fuse[0].weight[:, 16:] = 0
    code = _noise(1, 4, 32, 32).double().requires_grad_()
    net(code)[0, :, 16, 16].abs().sum().backward()
    assert code.grad is not None
    assert int((code.grad.abs().sum(dim=(0, 1)).nonzero() - 16).abs().max()) == cells


def test_every_parameter_learns() -> None:
    with building(0, "test"):
        net = OverComplete(8, 8, width=16, levels=2)
    net(_noise(2, 8, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_width_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        OverComplete(8, 8, width=20, levels=3)
