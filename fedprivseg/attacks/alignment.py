"""A code space of the attacker's own and a few anchors: the linear map between the two, in closed form.

The own autoencoder is the principal components of the auxiliary pictures' patches, the map a ridge regression from a
neighbourhood of 3 x 3 cells. Nothing is trained by descent, so nothing can be blamed on too few steps. Against orthogonal
mixing of channels, under whatever key, it needs no more anchors than without.
"""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from fedprivseg.attacks.base import Knowledge, Reconstruction, View

COUNTS = (5, 20)
"""How many anchors the adversary has."""

COMPONENTS = 64
RIDGES = 10.0 ** np.arange(-4, 5)
"""Strengths tried, times the mean variance of a feature; the last anchor decides."""


@final
class Alignment(Reconstruction):
    """Anchors tie the site's code space to the attacker's."""

    name = "alignment"
    title = "Alignment by anchors"
    paper = "Maiorca et al., NeurIPS 2023; ALGEN, arXiv 2502.11308"
    knows: ClassVar[frozenset[Knowledge]] = frozenset({Knowledge.AUXILIARY, Knowledge.PAIRS})

    def reconstruct(self, view: View) -> dict[str, np.ndarray]:
        """One setting for each number of anchors that there are."""
        assert view.auxiliary is not None
        ratio = view.shape[1] // view.codes.shape[2]
        patches = _patches(view.auxiliary, ratio)
        mean = patches.mean(axis=0)
        _, values, directions = np.linalg.svd(_some(patches - mean), full_matrices=False)
        basis = directions[: min(COMPONENTS, int((values > 1e-6 * values[0]).sum()))]
        found = {}
        for pictures, codes in view.some_pairs(COUNTS):
            own = (_patches(pictures, ratio) - mean) @ basis.T
            weights, centre, target = _ridge(_neighbourhoods(codes), own, cells=len(own) // len(pictures))
            output = ((_neighbourhoods(view.codes) - centre) @ weights + target) @ basis + mean
            found[f"{len(pictures)} anchors"] = _pictures(output, (len(view.codes), *view.shape), ratio)
        return found


def _patches(pictures: np.ndarray, ratio: int) -> np.ndarray:
    """Pictures (N, K, H, W) -> (N * h * w, K * ratio**2): the pixels under each cell of the code."""
    n, kinds, height, width = pictures.shape
    cells = pictures.reshape(n, kinds, height // ratio, ratio, width // ratio, ratio)
    return cells.transpose(0, 2, 4, 1, 3, 5).reshape(-1, kinds * ratio**2).astype(np.float64)


def _pictures(patches: np.ndarray, shape: tuple[int, int, int, int], ratio: int) -> np.ndarray:
    n, kinds, height, width = shape
    cells = patches.reshape(n, height // ratio, width // ratio, kinds, ratio, ratio)
    return np.clip(cells.transpose(0, 3, 1, 4, 2, 5).reshape(shape), 0, 1).astype(np.float32)


def _neighbourhoods(codes: np.ndarray) -> np.ndarray:
    """Codes (N, C, h, w) -> (N * h * w, 9 * C): each cell with its neighbours, the border repeated."""
    n, channels, h, w = codes.shape
    wide = np.pad(codes, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge").astype(np.float64)
    moved = [wide[:, :, row : row + h, column : column + w] for row in range(3) for column in range(3)]
    return np.stack(moved, axis=1).transpose(0, 3, 4, 1, 2).reshape(n * h * w, 9 * channels)


def _some(rows: np.ndarray, most: int = 20_000) -> np.ndarray:
    return rows[:: max(1, len(rows) // most)]


def _ridge(given: np.ndarray, wanted: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weights, centre of `given`, centre of `wanted`); the strength is chosen on the last anchor's cells if there are more."""
    lone = len(given) == cells
    train = slice(None) if lone else slice(0, -cells)
    best, strength = np.inf, RIDGES[len(RIDGES) // 2]
    if not lone:
        for candidate in RIDGES:
            weights, centre, target = _solve(given[train], wanted[train], candidate)
            error = np.square((given[-cells:] - centre) @ weights + target - wanted[-cells:]).mean()
            if error < best:
                best, strength = error, candidate
    return _solve(given, wanted, strength)


def _solve(given: np.ndarray, wanted: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centre, target = given.mean(axis=0), wanted.mean(axis=0)
    g, w = given - centre, wanted - target
    scale = strength * max(float(np.square(g).mean()), 1e-12) * len(g) / 1000
    weights = np.linalg.solve(g.T @ g + scale * np.eye(g.shape[1]), g.T @ w)
    return weights, centre, target
