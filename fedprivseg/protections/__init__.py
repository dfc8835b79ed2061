"""The operations that a scenario may name: what is done to codes before they may leave a site. One line here for each.

They are de-identifications as `operation` has them. (`secagg` protects sums of weights.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.core.expected import Expected
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.plugins import Registry
from fedprivseg.core.validation import validated
from fedprivseg.protections.blocks import DataTransformation, Permutation, Rearrangement
from fedprivseg.protections.boxes import Masking, NullInsertion, Occlusion
from fedprivseg.protections.channels import Channels
from fedprivseg.protections.grey_values import Clipping, NumericTransform, Perturbation, Randomisation
from fedprivseg.protections.keyed import Keyed
from fedprivseg.protections.noise import Noise
from fedprivseg.protections.operation import ArrayOperation, Key, Operation, SeedKey
from fedprivseg.protections.precision import Precision

PROTECTIONS: Registry[type[ArrayOperation]] = Registry(
    "protection",
    Operation,
    (
        *(Precision, Channels, Noise, Keyed),
        *(Occlusion, Masking, NullInsertion),
        *(Clipping, Perturbation, NumericTransform, Randomisation),
        *(Rearrangement, Permutation, DataTransformation),
    ),
)

__all__ = ["PROTECTIONS", "Shield", "protected", "resolve"]


def resolve(config: ProtectionConfig) -> ArrayOperation:
    """The operation that `config` names. Raises ScenarioError for an unknown one or a wrong parameter."""
    return validated(PROTECTIONS.find(config.name), config.parameters, f"protections.parameters of {config.name}")


def protected(configs: Sequence[ProtectionConfig], expected: Expected) -> Expected:
    """`expected` as it is under the protections in `configs`: with their steps in its history, in the order in which a `Shield`
    applies them to each array; shapes and types stay."""
    layers = [resolve(config) for config in configs if expected.kind in config.of]
    shapes = [tuple(length or 0 for length in form.shape) for _, form in sorted(expected.arrays.items())]
    codes = [_as_codes(shape)[1:] for shape in shapes]
    steps = [layer.history(code) for code in codes for layer in layers]
    return replace(expected, history=(*expected.history, *steps))


def _as_codes(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape (N, C, h, w) of an array whose first axis counts rows: axes that it lacks have length 1, and what lies behind
    the fourth is part of the fourth."""
    rows, channels, height, *rest = (*shape, 1, 1, 1)[: max(4, len(shape))]
    return rows, channels, height, math.prod(rest)


class Shield:
    """All protections of one site, in their order."""

    def __init__(self, configs: tuple[ProtectionConfig, ...], seed: int, site: str) -> None:
        """Resolve them. seed: the run's; site: whose keys these are."""
        self._layers = [(config, resolve(config)) for config in configs]
        self._seed, self._site = seed, site

    def apply(
        self, kind: KindSpec, codes: np.ndarray, names: tuple[str | int, ...]
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Codes of `kind` as they may leave.

        Args:
            kind: what they are.
            codes: (N, C, h, w), or any other shape with a row a code, which the protections see as one of these.
            names: which payload this is; the same again is protected the same again.

        Returns:
            The codes in their own shape and type, and what the history says of it.
        """
        history = []
        values = codes.astype(np.float32).reshape(_as_codes(codes.shape))
        for place, (config, protection) in enumerate(self._layers):
            if kind in config.of:
                values = protection.apply(values, self._key(kind, place, protection, names))
                history.append(protection.history(values.shape[1:]))
        return (values.reshape(codes.shape).astype(codes.dtype), tuple(history)) if history else (codes, ())

    def undo(self, kind: KindSpec, codes: np.ndarray) -> np.ndarray:
        """An answer in codes of `kind`, as the site's own decoder knows them. What cannot be undone stays."""
        values, changed = codes.astype(np.float32).reshape(_as_codes(codes.shape)), False
        for place, (config, protection) in reversed(list(enumerate(self._layers))):
            if kind in config.of:
                changed = True
                if protection.reversible:
                    values = protection.undo(values, self._key(kind, place, protection))
        return values.reshape(codes.shape).astype(codes.dtype) if changed else codes

    def _key(self, kind: KindSpec, place: int, protection: ArrayOperation, payload: tuple[str | int, ...] = ()) -> Key:
        return SeedKey(self._seed, (self._site, "protection", place, protection.name, kind.value), payload)
