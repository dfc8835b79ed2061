"""The baselines' networks: shapes, names, initial weights from a seed, and which arrays travel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import blocks
from torch.nn.modules.batchnorm import _NormBase

from fedprivseg.methods.privacy_sf import PrivacySF
from fedprivseg.nets.baseline import build_net, heads, load_weights, norm_names, statistics_names, weights_of
from fedprivseg.nets.codec import Codec, Encoder
from fedprivseg.nets.fitting_mapping import build_mapping
from fedprivseg.nets.local_training import Work, supervised_loss, train_round
from fedprivseg.nets.segmentation import segmentation_loss

NETS = ("unet", "unet-wide", "basic-unet", "nnunet")


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_logits_of_the_structures_on_the_slices_grid(name, norm):
    net = build_net(name, norm, 64, 3, 0, "x").eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 1, 64, 64)).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("name", NETS)
def test_group_norm_stands_in_the_place_of_every_norm_and_keeps_no_statistics(name):
    own, grouped = (build_net(name, norm, 32, 3, 0, "x") for norm in ("batch", "group"))
    norms = {
        norm: [m for m in net.modules() if isinstance(m, _NormBase)] for norm, net in (("own", own), ("g", grouped))
    }
    assert norms["own"]
    assert not norms["g"]
    assert sum(isinstance(module, torch.nn.GroupNorm) for module in grouped.modules()) == len(norms["own"])
    assert statistics_names(grouped) == frozenset()
    assert set(weights_of(grouped)) == {key for key, _ in grouped.named_parameters(remove_duplicate=False)}
    assert bool(statistics_names(own)) == name.startswith("unet"), "instance norms keep none"


def test_deep_supervision_has_a_head_at_all_but_the_two_coarsest_resolutions():
    # 128 -> 64, 32, 16, 8, 4: six resolutions, so four heads; halved weights 1, 1/2, 1/4, 1/8 over 15/8.
    net = build_net("nnunet", "batch", 128, 3, 0, "x").train()
    answer = heads(net(torch.randn(2, 1, 128, 128)))
    assert len(answer) == 4
    masks = torch.zeros(2, 128, 128, dtype=torch.uint8)
    each = [segmentation_loss(logits, masks) for logits in answer]
    expected = (each[0] + each[1] / 2 + each[2] / 4 + each[3] / 8) / 1.875
    torch.testing.assert_close(supervised_loss(torch.stack(answer, dim=1), masks), expected)


@pytest.mark.parametrize("name", NETS)
def test_initial_weights_come_from_the_seed(name):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one, same, other = (weights_of(build_net(name, "batch", 32, 3, seed, "x")) for seed in (0, 0, 1))
    assert all((one[key] == same[key]).all() for key in one)
    assert any((one[key] != other[key]).any() for key in one)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_travels_is_every_floating_array():
    net = build_net("unet", "batch", 32, 3, 0, "x")
    assert {value.dtype.name for value in weights_of(net).values()} == {"float32"}
    assert not any("num_batches_tracked" in name for name in weights_of(net))
    assert statistics_names(net) == {name for name in weights_of(net) if "running" in name}
    # Two batch norms in each of nine blocks, four floating arrays each (scale, offset, mean, variance).
    assert len(norm_names(net) & set(weights_of(net))) == 9 * 2 * 4


def test_a_layer_that_has_two_names_is_a_norm_under_both():
    net = build_net("nnunet", "batch", 32, 3, 0, "x")
    places = {name: array.data_ptr() for name, array in net.state_dict().items()}
    norms = {places[name] for name in norm_names(net)}
    assert norm_names(net) == {name for name, place in places.items() if place in norms}


def test_weights_go_out_and_in():
    one, other = (build_net("unet", "batch", 32, 3, seed, "x") for seed in (0, 1))
    load_weights(other, weights_of(one))
    assert all((weights_of(other)[key] == value).all() for key, value in weights_of(one).items())
    with pytest.raises(ValueError, match="no array 'alien'"):
        load_weights(one, {"alien": np.zeros(1)})


def test_a_copy_is_a_copy():
    net = build_net("unet", "batch", 32, 3, 0, "x")
    kept = weights_of(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert any((kept[name] != value).any() for name, value in weights_of(net).items())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_training_learns_toy_slices(optimiser):
    own = blocks(8)
    net = build_net("unet", "batch", 32, 3, 0, "x")
    rate = 0.1 if optimiser == "sgd" else 4e-3
    work = Work(0, 12, 24, batch=8, optimiser=optimiser, rate=rate, half=False)
    first = train_round(net, own.images, own.masks, work, 0, ("a", 1))
    assert train_round(net, own.images, own.masks, work, 0, ("a", 2)) < 0.9 * first


def test_a_diverging_loss_is_an_error():
    from fedprivseg.core.errors import RunError

    own = blocks(8)
    own.images[0, 0, 0] = np.nan
    with pytest.raises(RunError, match="diverged"):
        train_round(build_net("unet", "batch", 32, 3, 0, "x"), own.images, own.masks, Work(0, 2, 2, batch=8), 0, ("a",))


def test_unet_wide_has_as_many_parameters_as_the_improved_coded_pipeline():
    # What segments a slice there: the site's image encoder, the server's mapping (one site's ends), the mask decoder.
    p = PrivacySF.parameters_type(**PrivacySF.variants["improved"])
    parts = [
        Encoder(1, p.image_depth, p.image_channels, p.image_folds),
        build_mapping(
            ["a"],
            p.image_channels,
            p.mask_channels,
            backbone=p.trunk,
            width=p.trunk_width,
            levels=p.trunk_levels,
            adapters=True,
        ),
        Codec(3, 3, p.mask_depth, p.mask_channels, p.mask_folds).decoder,
    ]
    coded = sum(weight.numel() for part in parts for weight in part.parameters())
    wide = sum(weight.numel() for weight in build_net("unet-wide", "batch", 32, 3, 0, "x").parameters())
    assert abs(wide - coded) < 0.05 * coded, (wide, coded)
