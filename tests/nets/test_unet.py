"""The baseline U-Net."""

import pytest
import torch

from fedprivseg.nets.unet import UNet


def test_sizes_and_widths_are_8_to_128() -> None:
    net = UNet(1, 3).eval()
    sizes: list[tuple[int, ...]] = []
    for stage in [net.stem, *net.downs, *net.ups]:
        stage.register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    assert net(torch.rand(1, 1, 64, 32)).shape == (1, 3, 64, 32)
    down = [(8, 64, 32), (16, 32, 16), (32, 16, 8), (64, 8, 4), (128, 4, 2)]
    assert sizes == [*down, *down[-2::-1]]


def test_skips_carry_detail_past_the_bottleneck() -> None:
    net = UNet(1, 1, depth=2).eval()
    before = net(torch.zeros(1, 1, 32, 32))
    for down in net.downs:
        down.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    cut_flat = net(torch.zeros(1, 1, 32, 32))
    cut_detail = net(torch.rand(1, 1, 32, 32))
    assert before.shape == cut_flat.shape
    assert (cut_flat - cut_detail).abs().max() > 1e-4


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        UNet(1, 1)(torch.rand(1, 1, 40, 32))
