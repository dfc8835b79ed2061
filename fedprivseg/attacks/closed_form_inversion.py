"""Images from the gradient of a dense layer, by a division.

The gradient of row k of a dense layer is d_k f, summed over the images, and that of its bias is d_k, where f is what the layer
sees (Phong et al., IEEE TIFS 2018; Geiping et al., NeurIPS 2020, proposition 3.1). So of one image f is one over the other. Of
several the difference of neighbouring rows holds one, where the rows were crafted so (`crafted_weights.imprinted`). It works
where the layers before the dense one carry the pixels through; this package's U-Nets have no dense layer.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from fedprivseg.attacks.base import UpdateAttack, UpdateView

LOUD = 0.1
"""Share of the largest difference of two rows' gradients from which an image stands between them."""


@final
class ClosedFormInversion(UpdateAttack):
    """Divides the gradient of the first dense layer by that of its bias, row by row."""

    name = "closed-form-inversion"
    title = "Closed-form inversion of a dense layer"
    paper = "Phong et al., IEEE TIFS 2018; for several images Fowl et al., ICLR 2022"
    knows = "the released update, the weights before it, how the site steps, and the outlines of the slices"

    def lacks(self, view: UpdateView) -> str:
        """Networks without a dense layer that sees the pixels."""
        net = view.build()
        if (dense := _dense(net)) is None:
            return "this network has no dense layer, and a convolution's gradient has no closed form for its input"
        if _places(net, view) is None:
            return "the layers before the dense one of this network do not carry the pixels through"
        if view.work.steps > 1:
            return "several steps are not one gradient"
        _, layer = dense
        return "" if len(view.masks) == 1 or _crafted(layer) else "no row of the dense layer holds one image of several"

    def reconstruct(self, view: UpdateView) -> np.ndarray:
        """One image for each of the outlines: of all that rows hold, those that the outlines explain best."""
        net = view.build()
        dense, places = _dense(net), _places(net, view)
        assert dense is not None, "asked of a view that lacks nothing"
        assert places is not None, "asked of a view that lacks nothing"
        name, layer = dense
        # The optimiser adds the decay to the gradient; of the rows' own gradient only ratios count.
        step = view.work.rate_at(0) * (1 + view.work.momentum)
        weight, bias = (
            view.update[f"{name}.{part}"] / step - view.work.decay * getattr(layer, part).detach().cpu().numpy()
            for part in ("weight", "bias")
        )
        _, height, width = view.masks.shape
        if _crafted(layer):
            seen = _between_thresholds(layer, weight)
        else:
            loudest = int(np.abs(bias).argmax())
            seen = weight[loudest : loudest + 1] / bias[loudest]
        images = np.clip(seen[:, places].reshape(-1, height, width), 0, 1).astype(np.float32)
        return _assigned(images, view.masks)[:, None]


def _dense(net: nn.Module) -> tuple[str, nn.Linear] | None:
    """The first dense layer with a bias, by name."""
    layers = ((name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear))
    return next(((name, layer) for name, layer in layers if layer.bias is not None), None)


def _crafted(layer: nn.Linear) -> bool:
    """Whether the rows of the layer differ in their thresholds alone."""
    weight = layer.weight.detach()
    return len(weight) > 1 and bool((weight == weight[0]).all())


def _between_thresholds(layer: nn.Linear, rows: np.ndarray) -> np.ndarray:
    """What stands between two thresholds of crafted rows: (N, F), the one that moved the rows most first.

    The gradients of the biases, which drown in the rounding of large thresholds, are not needed: between its thresholds the
    brightness of an image is known.

    Args:
        layer: rows of equal weights; row k fires above the mean -bias_k / sum of its weights.
        rows: the gradient of its weights, (K, F).
    """
    weight, bias = (each.detach().cpu().numpy().astype(np.float64) for each in (layer.weight, layer.bias))
    levels = -bias / weight.sum(axis=1)
    # Above the last threshold stands what moves its row.
    middles = np.append((levels[:-1] + levels[1:]) / 2, levels[-1])
    found = -np.diff(rows.astype(np.float64), axis=0, append=0)
    sizes = np.linalg.norm(found, axis=1)
    loud = np.flatnonzero(sizes > LOUD * sizes.max())
    loud = loud[np.argsort(-sizes[loud], kind="stable")]
    found = found[loud]
    return np.asarray(found * (middles[loud] / found.mean(axis=1))[:, None])


def _places(net: nn.Module, view: UpdateView) -> np.ndarray | None:
    """Where each pixel stands in what the dense layer sees, (H * W,); None if pixels are not passed on as they are."""
    found: list[torch.Tensor] = []
    dense = _dense(net)
    assert dense is not None, "asked of a network that has one"
    size = view.masks.shape[1] * view.masks.shape[2]
    ramp = (torch.arange(size) + 1) / size
    hook = dense[1].register_forward_pre_hook(lambda _, given: found.append(given[0].detach().reshape(-1)))
    with torch.no_grad():
        net.eval()(ramp.reshape(1, 1, *view.masks.shape[1:]))
    hook.remove()
    (seen,) = found
    if len(seen) != size:
        return None
    order = torch.argsort(seen, stable=True)
    return order.numpy() if torch.allclose(seen[order], ramp, atol=0.1 / size) else None


def _assigned(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """For each of the outlines (B, H, W) one of `images` (N, H, W), each once while they last, so that together the outlines
    explain most of the brightness: structures differ from each other."""
    scores = np.zeros((len(masks), max(len(images), len(masks))))
    for row, mask in enumerate(masks):
        for column, image in enumerate(images):
            scores[row, column] = _explained(image, mask)
    _, chosen = linear_sum_assignment(-scores)
    return images[np.minimum(chosen, len(images) - 1)]


def _explained(image: np.ndarray, mask: np.ndarray) -> float:
    """Share of the variance of the brightness in the structures that is between them, 0..1."""
    inside = image[mask > 0].astype(np.float64)
    if not len(inside) or inside.var() == 0:
        return 0.0
    parts = [image[mask == label] for label in np.unique(mask) if label]
    between = sum(len(part) * (part.mean() - inside.mean()) ** 2 for part in parts) / len(inside)
    return float(between / inside.var())
