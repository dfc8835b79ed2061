"""What attacks on a run found: the content of ``attacks.json``, the worst of it, and the admission table.

Read by the report and by comparisons, which need none of the attacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import ValidationError

from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.documents import damaged, read_document
from fedprivseg.core.model import Frozen

VERSION = 1

AGAIN = "Delete it and attack again"
"""What helps against a damaged record of attacks."""

What = Literal["images", "masks"]
Budget = Literal["small", "full"]

HEADLINE: Mapping[What, str] = {"images": "SSIM", "masks": "Dice"}
"""The measure whose worst normalised leakage stands for a run, over the slice and over what the task calls its region."""


class Measure(Frozen):
    """A measure of a reconstruction with its references, see `attacks.judge.Figure`."""

    measure: str
    value: float
    low: float | None
    high: float | None
    floor: float
    neighbour: float
    own_decoder: float | None
    ceiling: float | None
    leakage: float | None


CONTROL = 0.5
"""The leakage that an attack on updates must reach on the easiest update staged for it. Ours: half of the way from the floor to
the image. A picture that is hardly better than the mean shows that slices look alike, and not what an update tells."""


class ReconstructionResult(Frozen):
    """One attack, in one setting, on the codes or the update of one site. staged: on something that was made for the attack and
    never released, to show under which circumstances it works; it says nothing of the run. defence: what of the run's defences
    was put on something staged; where there is one, the attack should fail."""

    attack: str
    title: str
    paper: str
    setting: str
    site: str
    what: What
    knows: str
    slices: int
    subjects: int
    measures: tuple[Measure, ...]
    recognised: float
    chance: float
    seconds: float
    staged: bool = False
    defence: str = ""

    @property
    def leakage(self) -> float:
        """The worst normalised leakage among the headline measures."""
        return max(
            m.leakage
            for m in self.measures
            if m.measure.split(", ")[0] == HEADLINE[self.what] and m.leakage is not None
        )

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        first = self.measures[0]
        setting = f" ({self.setting})" if self.setting else ""
        staged = ", staged and not released" if self.staged else ""
        return (
            f"{self.title}{setting}{staged}: with {self.knows}, it redraws {self.what} of {self.site} to a {first.measure} "
            f"of {first.value:.2f}, where no code at all gives {first.floor:.2f} and the picture itself {first.ceiling:.0f}; "
            f"normalised leakage {self.leakage:.2f}. The right patient is the nearest in {self.recognised:.0%} of slices "
            f"(chance {self.chance:.0%})."
        )


class InferenceSummary(Frozen):
    """One number about people: see `attacks.people.InferenceResult`."""

    attack: str
    title: str
    paper: str
    site: str
    knows: str
    measure: str
    value: float
    chance: float
    raw: float | None
    count: str

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        raw = "" if self.raw is None else f", and {self.raw:.2f} with the images themselves"
        return (
            f"{self.title}, {self.measure}: {self.value:.2f} where chance gives {self.chance:.2f}{raw} ({self.count} of "
            f"{self.site}). The adversary has {self.knows}."
        )


class Leakage(Frozen):
    """The content of ``attacks.json``."""

    version: int = VERSION
    scenario_sha256: str
    method: str
    variant: str
    protections: tuple[str, ...]
    budget: Budget
    sites: tuple[str, ...]
    auxiliary: str
    redrawn: tuple[ReconstructionResult, ...]
    inferred: tuple[InferenceSummary, ...]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def control_failed(self) -> bool:
        """Whether attacks on updates failed where they have to succeed: on the updates staged for them without a defence, none
        came as near as `CONTROL`. What they draw of the release then says nothing."""
        staged = [each.leakage for each in self.redrawn if each.staged and not each.defence]
        return bool(staged) and max(staged) < CONTROL

    def worst(self, what: What) -> ReconstructionResult | None:
        """The attack that gives away most of one kind of picture."""
        own = [each for each in self.redrawn if each.what == what and not each.staged]
        return max(own, key=lambda each: each.leakage, default=None)


def read_leakage(run: Path) -> Leakage | None:
    """What was measured of the run in `run`, or None if it was not attacked. Raises FolderError if the record is damaged."""
    path = run / "attacks.json"
    if not path.exists():
        return None
    try:
        return Leakage.model_validate(read_document(path, AGAIN))
    except ValidationError:
        raise damaged(path, "is no record of attacks that this release reads", AGAIN) from None


class Indicator(Frozen):
    """One line of the admission table: what was `measured` (None where nothing could be), the `threshold`, and who set it."""

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
    """The technical admission indicators of a run: the worst that was measured of each, against the threshold in `policy`.
    whose: who set each threshold, by its name there."""
    lines = []
    for name, what, key in (
        ("normalised leakage of images", "images", "image_leakage"),
        ("normalised leakage of masks", "masks", "mask_leakage"),
    ):
        worst = found.worst(what)  # type: ignore[arg-type]
        by = "" if worst is None else f"{worst.title}{f' ({worst.setting})' if worst.setting else ''} at {worst.site}"
        lines.append(
            Indicator(
                name=name,
                measured=None if worst is None or found.control_failed else max(worst.leakage, 0.0),
                threshold=getattr(policy, key),
                by=by,
                whose=whose.get(key, ""),
            )
        )
    drawn = [one for one in found.redrawn if one.what == "images" and not one.staged]
    seen = max(drawn, key=lambda one: one.recognised - one.chance, default=None)
    lines.append(
        Indicator(
            name="patient found from a redrawn slice, above chance",
            measured=None if seen is None else seen.recognised - seen.chance,
            threshold=policy.recognised,
            by="" if seen is None else f"{seen.title}{f' ({seen.setting})' if seen.setting else ''} at {seen.site}",
            whose=whose.get("recognised", ""),
        )
    )
    for attack, name, key, above_chance in (
        ("linkage", "linkage of a patient's codes, AUC", "linkage", False),
        ("attributes", "attribute of a patient, accuracy above the commonest value", "attribute", True),
        ("membership", "membership in the training, AUC", "membership", False),
    ):
        own = [
            one
            for one in found.inferred
            if one.attack == attack and (above_chance or "AUC" in one.measure) and "control" not in one.measure
        ]
        values = {one.value - one.chance if above_chance else one.value: one for one in own}
        most = max(values, default=None)
        by = "" if most is None else f"{values[most].measure} at {values[most].site}"
        threshold, who = getattr(policy, key), whose.get(key, "")
        lines.append(Indicator(name=name, measured=most, threshold=threshold, by=by, whose=who))
    return tuple(lines)
