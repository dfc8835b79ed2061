"""The encoding networks against Table 2 of Chen et al. 2024, stage by stage."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedprivseg.core.seeds import building, torch_generator
from fedprivseg.nets.codec import Codec, Decoder, Encoder, code_shape

TABLE_2_ENCODER = [(8, 1), (16, 2), (32, 4), (64, 8), (128, 16)]
TABLE_2_DECODER = [(64, 8), (32, 4), (16, 2), (8, 1)]
"""(channels, H / height of the stage), copied from the paper."""


def _stage_sizes(net: nn.Module, stages: list[nn.Module], picture: torch.Tensor) -> list[tuple[int, ...]]:
    sizes: list[tuple[int, ...]] = []
    hooks = [stage.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:]))) for stage in stages]
    net(picture)
    for hook in hooks:
        hook.remove()
    return sizes


def test_encoder_is_table_2_stage_by_stage() -> None:
    height, width = 64, 96
    net = Encoder(inputs=1)
    sizes = _stage_sizes(net, [net.stem, *net.downs], torch.rand(2, 1, height, width))
    assert sizes == [(channels, height // cell, width // cell) for channels, cell in TABLE_2_ENCODER]


def test_decoder_is_table_2_stage_by_stage() -> None:
    height, width = 64, 96
    net = Decoder(outputs=3)
    sizes = _stage_sizes(net, [*net.ups, net.output], torch.rand(2, 128, height // 16, width // 16))
    expected = [(channels, height // cell, width // cell) for channels, cell in TABLE_2_DECODER]
    assert sizes == [*expected, (3, height, width)]


def test_each_stage_is_two_convolutions_with_batch_norm_and_relu() -> None:
    kinds = [type(layer) for layer in Encoder(inputs=1).downs[2]]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    for layer in Codec(1, 1).modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            assert (layer.stride, layer.padding) == ((1, 1), (1, 1))


def test_encoder_of_the_paper_has_the_parameters_of_table_2() -> None:
    # Two 3x3 convolutions without bias and two batch norms (scale, shift) a stage:
    # 9*(1*8 + 8*8) + 4*8 = 680; then 9*(c*2c + 2c*2c) + 4*2c = 54*c*c + 8*c for c = 8, 16, 32, 64:
    # 3520 + 13952 + 55552 + 221696 = 294720.
    assert sum(p.numel() for p in Encoder(inputs=1).parameters()) == 680 + 294720


@settings(max_examples=15, deadline=None)
@given(
    stages=st.integers(1, 4).flatmap(lambda depth: st.tuples(st.just(depth), st.integers(0, depth))),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    channels=st.sampled_from([None, 5]),
)
def test_codes_have_the_announced_shape_and_decode_to_the_picture(
    stages: tuple[int, int], rows: int, columns: int, channels: int | None
) -> None:
    depth, space_to_depth = stages
    height, width = rows * 2**depth, columns * 2**depth
    net = Codec(inputs=3, outputs=2, depth=depth, channels=channels, space_to_depth=space_to_depth).eval()
    picture = torch.rand(1, 3, height, width)
    assert tuple(net.encoder(picture).shape[1:]) == code_shape(height, width, depth, channels)
    assert tuple(net(picture).shape) == (1, 2, height, width)


def test_a_projection_appears_only_when_it_leaves_table_2() -> None:
    assert isinstance(Encoder(1, depth=4, channels=128).project, nn.Identity)
    assert not isinstance(Encoder(1, depth=4, channels=32).project, nn.Identity)


def test_projected_codes_are_standardised() -> None:
    code = Encoder(1, depth=2, channels=8)(torch.rand(4, 1, 32, 32))
    torch.testing.assert_close(code.mean(dim=(0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(code.var(dim=(0, 2, 3), correction=0), torch.ones(8), atol=1e-2, rtol=0)


def test_sizes_that_do_not_divide_are_refused_with_the_next_size_that_does() -> None:
    with pytest.raises(ValueError, match="multiples of 16.*112 x 128"):
        Encoder(inputs=1)(torch.rand(1, 1, 100, 128))
    with pytest.raises(ValueError, match="at least 1"):
        Encoder(inputs=1, depth=0)
    with pytest.raises(ValueError, match="at least 1"):
        Decoder(outputs=1, depth=0)
    with pytest.raises(ValueError, match="0 to 2 move"):
        Encoder(inputs=1, depth=2, space_to_depth=3)


def test_a_folded_code_depends_on_a_small_neighbourhood_alone() -> None:
    # Two 3x3 convolutions on cells of 4 pixels see two cells to each side, at most 11 pixels away.
    with building(0, "test"):
        net = Encoder(inputs=1, depth=2, channels=8, space_to_depth=2).eval()
    picture = torch.rand((1, 1, 64, 64), generator=torch_generator(0, "test")).requires_grad_()
    net(picture)[0, :, 8, 8].square().sum().backward()
    assert picture.grad is not None
    rows, columns = picture.grad[0, 0].nonzero(as_tuple=True)
    for places in (rows, columns):
        assert int(places.min()) >= 8 * 4 - 8
        assert int(places.max()) < 8 * 4 + 12
