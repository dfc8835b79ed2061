"""The networks of the baselines, by name, and their weights as named arrays: what travels in federated averaging.

All answer with one logit per structure, (N, K, H, W), as every network of this package does (see `segmentation`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from fedprivseg.core.seeds import building
from fedprivseg.nets.choices import WIDTH, NetName, Norm
from fedprivseg.nets.unet import UNet

Weights = Mapping[str, np.ndarray]
"""Named float32 arrays of a network: parameters and the running statistics of its batch norms, where it has any."""

SMALLEST = 4
"""nnU-Net stops down-sampling when a side would fall below this many pixels (Isensee et al. 2021, supplement)."""


def build_net(name: NetName, norm: Norm, side: int, structures: int, seed: int, *names: str | int) -> nn.Module:
    """An untrained network whose initial weights come from (seed, names).

    unet: the package's own, 8-16-32-64-128 channels, the widths of the codecs of coded segmentation. unet-wide: twice
    as wide, with as many parameters as the improved variant of coded segmentation has in all (2.0 million). basic-unet:
    MONAI's BasicUNet at its default widths. nnunet: MONAI's DynUNet as nnU-Net plans it for slices of `side` pixels (the
    smaller of H and W): 3x3 kernels, 32 channels doubling to 512, as many down-samplings as leave a side of 4, instance
    norm, leaky ReLU, deep supervision (Isensee et al., Nature Methods 18:203, 2021).
    structures: how many it tells apart from the background.
    norm: ``batch`` leaves the network its own norm: batch norm in unet and unet-wide, instance norm (of each slice alone,
    without running statistics) in basic-unet and nnunet. ``group`` puts a GroupNorm in the place of every norm of any of
    them, so that nothing but parameters is left in the weights.
    """
    with building(seed, *names):
        net = _built(name, side, structures)
        if norm == "group":
            net = _grouped(net)
    return net


def norm_names(net: nn.Module) -> frozenset[str]:
    """The names in `net.state_dict()` that belong to normalisation layers."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
    return frozenset(
        f"{place}.{name}"
        for place, module in net.named_modules(remove_duplicate=False)
        if isinstance(module, kinds)
        for name in module.state_dict()
    )


def statistics_names(net: nn.Module) -> frozenset[str]:
    """The names in `weights_of(net)` that are no parameters: running means and variances."""
    # Under every name: DynUNet holds each of its layers under two.
    return frozenset(weights_of(net)) - {name for name, _ in net.named_parameters(remove_duplicate=False)}


def weights_of(net: nn.Module) -> dict[str, np.ndarray]:
    """A copy of every floating array of `net`; counters (``num_batches_tracked``) are nobody's knowledge and stay."""
    return {
        name: value.detach().cpu().contiguous().numpy().copy()
        for name, value in net.state_dict().items()
        if value.dtype.is_floating_point
    }


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every array of `weights_of`; also of a net on the device ``meta``, which holds no values."""
    return {name: tuple(value.shape) for name, value in net.state_dict().items() if value.dtype.is_floating_point}


def load_weights(net: nn.Module, weights: Weights) -> None:
    """Put `weights` into `net`; arrays that it lacks stay as they are. Raises ValueError for one that `net` lacks."""
    own = net.state_dict()
    if unknown := sorted(set(weights) - set(own)):
        raise ValueError(f"the network has no array {unknown[0]!r}; these weights are of another network")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(torch.tensor(value))  # from_numpy warns of what came: nobody may write to it


def heads(answer: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The logits (N, K, H, W) of a network in training, finest first: one, or several under deep supervision."""
    return answer.unbind(dim=1) if answer.ndim == 5 else (answer,)


def _built(name: NetName, side: int, structures: int) -> nn.Module:
    if name == "unet":
        return UNet(1, structures)
    if name == "unet-wide":
        return UNet(1, structures, width=2 * WIDTH)
    if name == "basic-unet":
        from monai.networks.nets import BasicUNet

        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=structures)
    from monai.networks.nets import DynUNet

    stages = 1
    while side // 2**stages >= SMALLEST and side % 2**stages == 0:
        stages += 1
    return DynUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=structures,
        kernel_size=[3] * stages,
        strides=[1] + [2] * (stages - 1),
        upsample_kernel_size=[2] * (stages - 1),
        filters=[min(32 << stage, 512) for stage in range(stages)],
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=True,
        # A head at every resolution but the coarsest two, as nnU-Net has it.
        deep_supr_num=max(1, stages - 3),
    )


def _grouped(net: nn.Module) -> nn.Module:
    """`net` with GroupNorm (at most 8 groups) instead of batch or instance norm, and without in-place activations."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._NormBase):
                channels = child.num_features
                groups = next(count for count in range(min(8, channels), 0, -1) if channels % count == 0)
                setattr(module, name, nn.GroupNorm(groups, channels))
            elif isinstance(child, nn.ReLU | nn.LeakyReLU):
                # Per-sample gradients hook the activations; an activation in place would overwrite what they hook.
                child.inplace = False
    return net
