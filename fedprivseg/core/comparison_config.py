"""What a scenario says for the sake of comparisons: how much its sites' scanners differ, and what its run is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from fedprivseg.core.model import Frozen
from fedprivseg.core.validation import Name

Range = tuple[float, float]


class ShiftConfig(Frozen):
    """How much the scanners of simulated sites differ (``study/acquisition_shift.py``). Each site's values are drawn once, from
    ``data.seed``, each site's from another part of a range; the ranges are those of `strength` unless stated.

    Attributes:
        strength: ``none``: all sites' images are as they are.
        gamma: exponent of the intensities; its logarithm is uniform.
        bias: the coil's field reaches exp(-bias) to exp(bias).
        blur_mm: standard deviation of a blur in the plane of a slice.
        noise: standard deviation of the noise, as a share of the intensities' range.
        resolution: by how much the acquired matrix is smaller, along either side.
    """

    MEASURES: ClassVar[tuple[str, ...]] = ("gamma", "bias", "blur_mm", "noise", "resolution")
    RANGES: ClassVar[Mapping[str, Mapping[str, Range]]] = {
        "mild": {
            "gamma": (0.8, 1.25),
            "bias": (0.0, 0.2),
            "blur_mm": (0.0, 0.7),
            "noise": (0.0, 0.02),
            "resolution": (1.0, 1.3),
        },
        "strong": {
            "gamma": (0.6, 1.65),
            "bias": (0.1, 0.5),
            "blur_mm": (0.0, 1.3),
            "noise": (0.005, 0.04),
            "resolution": (1.0, 1.8),
        },
    }
    LIMITS: ClassVar[Mapping[str, Range]] = {
        "gamma": (0.1, 10.0),
        "bias": (0.0, 2.0),
        "blur_mm": (0.0, 20.0),
        "noise": (0.0, 1.0),
        "resolution": (1.0, 16.0),
    }

    strength: Literal["none", "mild", "strong"] = "none"
    gamma: Range | None = None
    bias: Range | None = None
    blur_mm: Range | None = None
    noise: Range | None = None
    resolution: Range | None = None

    @model_validator(mode="after")
    def _in_limits(self) -> ShiftConfig:
        for name, (least, most) in self.LIMITS.items():
            stated: Range | None = getattr(self, name)
            if stated is not None and self.strength == "none":
                raise ValueError(
                    f'{name} is stated and strength is "none"; state "mild" or "strong" for the other ranges'
                )
            if stated is not None and not least <= stated[0] <= stated[1] <= most:
                raise ValueError(f"{name} is {list(stated)}; needed are [lowest, highest] from {least:g} to {most:g}")
        return self

    def drawn_from(self, name: str) -> Range:
        """The range of one of `MEASURES`."""
        stated: Range | None = getattr(self, name)
        return stated or self.RANGES[self.strength][name]


class CompareConfig(Frozen):
    """How the run stands in a comparison. It is stated before the run and changes no result, so that it is no part of what
    names the scenario (`Scenario.sha256`). All runs of one comparison should state the same `reference` and `floor`.

    Attributes:
        reference: the scenario (or the label in the table) that differences are against; empty: nothing is tested. A reference
            that is chosen afterwards, such as the best on the test data, makes every p too small.
        floor: the scenario that every way of sharing has to beat; empty: the one run of ``local-only``, if there is just one.
        group: with which others its front is drawn; empty: by what it sends (``codes-only``, ``averaging``, ...).
    """

    reference: str = ""
    floor: str = ""
    group: Name | Literal[""] = ""
