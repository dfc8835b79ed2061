"""What attacks on a run found: the content of ``attacks.json``, the worst of it, and the admission table.

Read by the report and by comparisons, which need none of the attacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, ValidationError

from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.documents import damaged, read_document
from fedprivseg.core.method_card import What
from fedprivseg.core.model import Frozen
from fedprivseg.core.runfolder import RunFolder

AGAIN = "Delete it and attack again"
"""What helps against a damaged record of attacks."""

Budget = Literal["small", "full"]

HEADLINE: Mapping[What, str] = {"images": "SSIM", "masks": "Dice"}
"""The metric whose worst normalised leakage stands for a run, over the slice and over what the task calls its region."""

INDICATORS: Mapping[str, str] = {
    "image_leakage": "normalised leakage of images",
    "mask_leakage": "normalised leakage of masks",
    "recognised": "rank-1 re-identification from a reconstructed slice, above chance",
    "linkage": "linkage of a patient's codes, AUC",
    "attribute": "attribute of a patient, accuracy above the commonest value",
    "membership": "membership in the training, AUC",
}
"""The lines of the admission table, by their thresholds in `AdmissionConfig`. An attack says for which it counts."""

CONTROL = 0.5
"""The leakage that an attack on updates must reach on the easiest update staged for it. Ours: half of the way from the lower
baseline to the image. An image that is hardly better than the mean shows that slices look alike, not what is in an update."""


class Metric(Frozen):
    """One metric of one reconstruction, and the same of the references.

    Attributes:
        metric: its name, such as ``SSIM``.
        value: the mean over subjects.
        low: lower end of the 95 % bootstrap interval over subjects; None for one subject.
        high: its upper end.
        lower_baseline: what needs no code, the mean of the attacker's own pictures, reaches.
        neighbour: what the attacker's picture that is nearest to the truth reaches.
        own_decoder: what the site's own decoder reaches; None where there is none.
        upper_baseline: what the picture itself reaches; None where the metric has no bound (dB).
        leakage: normalised, 0 at the lower and 1 at the upper baseline; None where there is no upper one.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    lower_baseline: float
    neighbour: float
    own_decoder: float | None
    upper_baseline: float | None
    leakage: float | None


class ReconstructionResult(Frozen):
    """One attack, in one setting, on the codes or the update of one site.

    Attributes:
        net: the network of a staged case; empty: the run's own.
        rank1: rank-1 re-identification, the share of slices for which the nearest image is of the right patient.
        chance: the same by guessing.
        staged: whether it is on something that was made for the attack and never released, to show under which circumstances
            it works; it says nothing of the run.
        defence: what of the run's defences was put on something staged; where there is one, the attack should fail.
    """

    attack: str
    title: str
    paper: str
    setting: str
    site: str
    what: What
    net: str = ""
    knows: str
    slices: int
    subjects: int
    metrics: tuple[Metric, ...]
    rank1: float
    chance: float
    seconds: float
    staged: bool = False
    defence: str = ""

    @property
    def leakage(self) -> float:
        """The worst normalised leakage among the headline metrics."""
        return max(
            m.leakage for m in self.metrics if m.metric.split(", ")[0] == HEADLINE[self.what] and m.leakage is not None
        )

    @property
    def indicators(self) -> dict[str, float]:
        """What counts for admission, by the indicator; nothing of what was never released."""
        if self.staged:
            return {}
        if self.what == "masks":
            return {"mask_leakage": self.leakage}
        return {"image_leakage": self.leakage, "recognised": self.rank1 - self.chance}

    @property
    def by(self) -> str:
        """Which attack this is, and where."""
        return f"{self.title}{f' ({self.setting})' if self.setting else ''} at {self.site}"

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        first = self.metrics[0]
        setting = f" ({self.setting})" if self.setting else ""
        staged = ", staged and not released" if self.staged else ""
        return (
            f"{self.title}{setting}{staged}: with {self.knows}, it reconstructs {self.what} of {self.site} to a {first.metric} "
            f"of {first.value:.2f}, where no code at all gives {first.lower_baseline:.2f} and the original itself "
            f"{first.upper_baseline:.0f}; normalised leakage {self.leakage:.2f}. The right patient is the nearest in "
            f"{self.rank1:.0%} of slices (chance {self.chance:.0%})."
        )


class InferenceResult(Frozen):
    """One number about patients: see `attacks.base.InferenceMetric`. indicator: the admission threshold for which the attack
    counts."""

    attack: str
    title: str
    paper: str
    site: str
    knows: str
    indicator: str
    metric: str
    value: float
    chance: float
    raw: float | None
    count: str
    counts: float | None

    @property
    def indicators(self) -> dict[str, float]:
        """What counts for admission, by the indicator."""
        return {} if self.counts is None else {self.indicator: self.counts}

    @property
    def by(self) -> str:
        """Which number this is, and where."""
        return f"{self.metric} at {self.site}"

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        raw = "" if self.raw is None else f", and {self.raw:.2f} with the images themselves"
        return (
            f"{self.title}, {self.metric}: {self.value:.2f} where chance gives {self.chance:.2f}{raw} ({self.count} of "
            f"{self.site}). The adversary has {self.knows}."
        )


class Leakage(Frozen):
    """The content of ``attacks.json``, format 2; `read_leakage` reads format 1 as well.

    Attributes:
        plugins: the versions of packages of others whose attacks were carried out, by package.
        auxiliary: what the adversaries' own pictures are.
        left_out: what could not be attacked, and why.
    """

    version: Literal[2] = 2
    scenario_sha256: str
    method: str
    variant: str
    protections: tuple[str, ...]
    plugins: dict[str, str] = Field(default_factory=dict)
    budget: Budget
    sites: tuple[str, ...]
    auxiliary: str
    reconstructions: tuple[ReconstructionResult, ...]
    inferences: tuple[InferenceResult, ...]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def results(self) -> tuple[ReconstructionResult | InferenceResult, ...]:
        """All of them."""
        return (*self.reconstructions, *self.inferences)

    @property
    def control_failed(self) -> bool:
        """Whether attacks on updates failed where they have to succeed: on the updates staged for them without a defence, none
        came as near as `CONTROL`. What they reconstruct from the release then says nothing."""
        staged = [each.leakage for each in self.reconstructions if each.staged and not each.defence]
        return bool(staged) and max(staged) < CONTROL

    def worst(self, what: What) -> ReconstructionResult | None:
        """The attack that gives away most of images or of masks."""
        own = [each for each in self.reconstructions if each.what == what and not each.staged]
        return max(own, key=lambda each: each.leakage, default=None)


def read_leakage(run: Path) -> Leakage | None:
    """What was measured of the run in `run`, or None if it was not attacked. Raises FolderError if the record is damaged."""
    path = RunFolder(run).attacks
    if not path.exists():
        return None
    content = read_document(path, AGAIN)
    try:
        return Leakage.model_validate(_from_version_1(content) if content.get("version", 1) == 1 else content)
    except (ValidationError, LookupError, TypeError):
        raise damaged(path, "is no record of attacks that this release reads", AGAIN) from None


_RENAMED = {
    "redrawn": "reconstructions", "inferred": "inferences", "measures": "metrics", "recognised": "rank1",
    "measure": "metric", "floor": "lower_baseline", "ceiling": "upper_baseline",
}  # fmt: skip
_INDICATORS_1 = {"linkage": "linkage", "attributes": "attribute", "membership": "membership"}


def _from_version_1(content: Any) -> Any:
    """A record of version 1, or a part of it, as version 2 has it."""
    if isinstance(content, list):
        return [_from_version_1(each) for each in content]
    if not isinstance(content, dict):
        return content
    found = {_RENAMED.get(name, name): _from_version_1(value) for name, value in content.items()}
    if "scenario_sha256" in found:
        found["version"] = 2
    elif "count" in found:  # an inference
        above_chance, auc = found["attack"] == "attributes", "AUC" in found["metric"]
        counts = found["value"] - found["chance"] if above_chance else found["value"]
        counted = above_chance or (auc and "control" not in found["metric"])
        found |= {"indicator": _INDICATORS_1[found["attack"]], "counts": counts if counted else None}
    return found


class Indicator(Frozen):
    """One line of the admission table.

    Attributes:
        name: the indicator in words.
        measured: the worst; None where nothing could be measured.
        threshold: the greatest value that passes.
        by: which attack reached it, and where.
        whose: who set the threshold.
    """

    name: str
    measured: float | None
    threshold: float
    by: str
    whose: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether it is admitted; None where nothing was measured, which is no admission."""
        return None if self.measured is None else self.measured <= self.threshold


def admission(
    found: Leakage, policy: AdmissionConfig, whose: Mapping[str, str] = MappingProxyType({})
) -> tuple[Indicator, ...]:
    """The admission table of a run: the worst that any attack reached of each indicator, against its threshold.

    Args:
        found: what attacks on the run found.
        policy: the thresholds.
        whose: who set each threshold, by its name there.
    """
    lines = []
    for key, name in INDICATORS.items():
        own = [one for one in found.results if key in one.indicators]
        worst = max(own, key=lambda one: one.indicators[key], default=None)
        measured = None if worst is None else worst.indicators[key]
        if measured is not None and key in ("image_leakage", "mask_leakage"):
            measured = None if found.control_failed else max(measured, 0.0)
        by = "" if worst is None else worst.by
        threshold, who = getattr(policy, key), whose.get(key, "")
        lines.append(Indicator(name=name, measured=measured, threshold=threshold, by=by, whose=who))
    return tuple(lines)
