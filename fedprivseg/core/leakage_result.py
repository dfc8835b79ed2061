"""What attacks on a run found: the content of ``attacks.json``, and the worst of it.

Read by the report and by comparisons, which need none of the attacks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from fedprivseg.core.method_card import What
from fedprivseg.core.model import Frozen

Budget = Literal["small", "full"]

HEADLINE: Mapping[What, str] = {"images": "SSIM", "masks": "Dice"}
"""The metric whose worst normalised leakage stands for a reconstruction, over the slice and over what the task calls its
region."""

INDICATORS: Mapping[str, str] = {
    "headline": "the worst of the lines below but attributes, from 0 for chance to 1 for everything",
    "image_leakage": "normalised leakage of images",
    "mask_leakage": "normalised leakage of masks",
    "recognised": "rank-1 re-identification from a reconstructed slice, above chance",
    "linkage": "linkage of a patient's codes, AUC",
    "attribute": "attribute of a patient, accuracy above the commonest value",
    "membership": "membership in the training, AUC",
}
"""The lines of the admission table, by their thresholds in `AdmissionConfig`. An attack says for which it counts."""

CONTROL = 0.5
"""What an attack on updates must reach on the easiest updates staged for it. Ours: half of the way from what needs no update to
everything, in SSIM, squared error or re-identification. What fails there fails everywhere, and shows nothing by it."""

UPDATES = "updates"
"""The stream of updates of weights; streams of codes are ``train``, ``test`` and ``answers``."""


Interval = tuple[float, float]


class Metric(Frozen):
    """One metric of one reconstruction, and the same of the references.

    Attributes:
        metric: its name, such as ``SSIM``.
        value: the mean over subjects.
        low: lower end of the 95 % interval over subjects (t); None for one subject.
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


class GroupLeakage(Frozen):
    """What a reconstruction gives away of the patients of one group.

    Attributes:
        attribute: by what they are grouped, such as ``sex``.
        group: which of its values they have.
        patients: how many there are.
        leakage: the mean over them of the normalised leakage; None if there are too few to be told of, which is not zero.
        rank1: the mean over them of the share of slices that are re-identified; None as `leakage`.
    """

    attribute: str
    group: str
    patients: int
    leakage: float | None
    rank1: float | None


class _Scored(Frozen, ABC):
    """What has numbers for the headline."""

    @property
    @abstractmethod
    def signed(self) -> dict[str, float]:
        """What counts for the headline, by the indicator, each 0 for what needs no release and 1 for everything; below 0 for
        less than that, as chance has it."""

    @property
    def normalised(self) -> dict[str, float]:
        """The same, with 0 in the place of what is below."""
        return {name: max(value, 0.0) for name, value in self.signed.items()}


class ReconstructionResult(_Scored):
    """One attack, in one setting, on one stream of codes or on the update of one site.

    Attributes:
        stream: of which stream: codes of ``train`` or ``test`` slices, the server's ``answers``, or ``updates``.
        net: of which network the update is, where several are staged; the control of each is its own.
        rank1: rank-1 re-identification, the share of slices for which the nearest image is of the right patient.
        rank1_low: lower end of its 95 % interval over patients (`measures.share_interval`); None for one patient.
        rank1_high: its upper end.
        chance: the same by guessing.
        groups: what it gives away by sex, vendor and the like.
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
    stream: str = ""
    net: str = ""
    knows: str
    slices: int
    subjects: int
    metrics: tuple[Metric, ...]
    rank1: float
    rank1_low: float | None = None
    rank1_high: float | None = None
    chance: float
    groups: tuple[GroupLeakage, ...] = ()
    seconds: float
    staged: bool = False
    defence: str = ""

    @property
    def leakage(self) -> float:
        """The worst normalised leakage among the headline metrics."""
        return max(metric.leakage for metric in self._headline_metrics if metric.leakage is not None)

    @property
    def _headline_metrics(self) -> list[Metric]:
        return [
            metric
            for metric in self.metrics
            if metric.metric.split(", ")[0] == HEADLINE[self.what] and metric.leakage is not None
        ]

    @property
    def indicators(self) -> dict[str, float]:
        """What counts for admission, by the indicator; nothing of what was never released."""
        if self.staged:
            return {}
        if self.what == "masks":
            return {"mask_leakage": self.leakage}
        return {"image_leakage": self.leakage, "recognised": self.rank1 - self.chance}

    @property
    def signed(self) -> dict[str, float]:
        """See `_Scored`."""
        found = self.indicators
        if "recognised" in found:
            found["recognised"] = self._identified
        return found

    def interval(self, indicator: str) -> Interval | None:
        """The 95 % interval over patients of `normalised[indicator]`; None for one patient."""
        if indicator == "recognised":
            return _between(self.rank1_low, self.rank1_high, self.chance, 1.0)
        leading = max(self._headline_metrics, key=lambda metric: metric.leakage or 0.0)
        return _between(leading.low, leading.high, leading.lower_baseline, leading.upper_baseline)

    @property
    def success(self) -> float:
        """How far it came by the measure that shows most of it: SSIM, squared error or re-identification, 1 for everything."""
        errors = [m.leakage for m in self.metrics if m.metric == "squared error" and m.leakage is not None]
        return max(self.leakage, self._identified, *errors)

    @property
    def _identified(self) -> float:
        return (self.rank1 - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0

    @property
    def by(self) -> str:
        """Which attack this is, on what, and where."""
        stream = f", {STREAMS.get(self.stream, self.stream)}" if self.stream else ""
        return f"{self.title}{f' ({self.setting})' if self.setting else ''} at {self.site}{stream}"

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        first = self.metrics[0]
        setting = f" ({self.setting})" if self.setting else ""
        staged = ", staged and not released" if self.staged else ""
        stream = f" from its {STREAMS.get(self.stream, self.stream)}" if self.stream else ""
        return (
            f"{self.title}{setting}{staged}: with {self.knows}, it reconstructs {self.what} of {self.site}{stream} to a "
            f"{first.metric} of {first.value:.2f}, where no code at all gives {first.lower_baseline:.2f} and the original "
            f"itself {first.upper_baseline:.0f}; normalised leakage {self.leakage:.2f}. The right patient is the nearest in "
            f"{self.rank1:.0%} of slices (chance {self.chance:.0%})."
        )


STREAMS: Mapping[str, str] = MappingProxyType(
    {"train": "training codes", "test": "test codes", "answers": "answers of the server", UPDATES: "updates of weights"}
)
"""What a stream is called."""


class InferenceResult(_Scored):
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
    low: float | None = None
    high: float | None = None
    p: float | None = None
    chance: float
    raw: float | None
    count: str
    counts: float | None

    @property
    def indicators(self) -> dict[str, float]:
        """What counts for admission, by the indicator."""
        return {} if self.counts is None else {self.indicator: self.counts}

    @property
    def signed(self) -> dict[str, float]:
        """See `_Scored`: of an AUC of linkage or membership, 0 for chance and 1 for certainty."""
        if self.counts is None or self.indicator == "attribute":
            return {}
        return {self.indicator: (self.counts - 0.5) / 0.5}

    def interval(self, indicator: str) -> Interval | None:
        """The 95 % interval over patients of `normalised[indicator]`; None where there is none."""
        return _between(self.low, self.high, 0.5, 1.0)

    @property
    def by(self) -> str:
        """Which number this is, and where."""
        return f"{self.metric} at {self.site}"

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        raw = "" if self.raw is None else f", and {self.raw:.2f} with the images themselves"
        sure = "" if self.low is None else f" (95 % interval over patients {self.low:.2f} to {self.high:.2f})"
        p = "" if self.p is None else f", p {self.p:.2g}"
        return (
            f"{self.title}, {self.metric}: {self.value:.2f}{sure} where chance gives {self.chance:.2f}{raw}{p} "
            f"({self.count} of {self.site}). The adversary has {self.knows}."
        )


def _between(low: float | None, high: float | None, chance: float, ceiling: float | None) -> Interval | None:
    """An interval on the scale on which chance is 0 and the ceiling 1, cut to that."""
    if low is None or high is None or ceiling is None or ceiling == chance:
        return None
    ends = sorted(min(max((value - chance) / (ceiling - chance), 0.0), 1.0) for value in (low, high))
    return ends[0], ends[1]


AttackResult = ReconstructionResult | InferenceResult


class Headline(Frozen):
    """The worst that any attack reached of anything, from 0 for chance to 1 for everything.

    Attributes:
        indicator: of which line of the admission table it is.
        attack: the name of the attack that reached it.
        stream: on which stream; "" for an inference.
        by: the same in words, and where.
        low: lower end of its 95 % interval over patients; None where there is none.
        high: its upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None
    indicator: str
    attack: str
    stream: str
    by: str


class Leakage(Frozen):
    """The content of ``attacks.json``, format 3; `leakage_record` reads formats 1 and 2 as well.

    Attributes:
        plugins: the versions of packages of others whose attacks were carried out, by package.
        auxiliary: what the adversaries' own pictures are.
        streams: what the attacked sites released that pictures may be reconstructed from. Of each, some attack must count
            before anything is said of the run as a whole.
        left_out: what could not be attacked, and why.
    """

    version: Literal[3] = 3
    scenario_sha256: str
    method: str
    variant: str
    protections: tuple[str, ...]
    plugins: dict[str, str] = Field(default_factory=dict)
    budget: Budget
    sites: tuple[str, ...]
    auxiliary: str
    streams: tuple[str, ...] = ()
    reconstructions: tuple[ReconstructionResult, ...]
    inferences: tuple[InferenceResult, ...]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def results(self) -> tuple[AttackResult, ...]:
        """All of them."""
        return (*self.reconstructions, *self.inferences)

    def counts(self, one: AttackResult) -> bool:
        """Whether `one` says anything: always, of codes and of patients. An attack on updates must have come as far as
        `CONTROL` on an update staged without a defence, of the same network; otherwise all its numbers say nothing."""
        if isinstance(one, InferenceResult):
            return True
        staged = [
            each.success
            for each in self.reconstructions
            if each.staged and not each.defence and (each.attack, each.net) == (one.attack, one.net)
        ]
        return max(staged, default=0.0) >= CONTROL if staged or one.stream == UPDATES else True

    def shown(self, one: AttackResult) -> bool:
        """Whether the numbers of `one` are shown: if it counts, or if it is what shows that its attack does not."""
        return self.counts(one) or (isinstance(one, ReconstructionResult) and one.staged and not one.defence)

    @property
    def counted(self) -> tuple[AttackResult, ...]:
        """Those of `results` that say something."""
        return tuple(one for one in self.results if self.counts(one))

    @property
    def unknown(self) -> tuple[str, ...]:
        """The streams of which nothing is known: no attack on them passed its control, or none was carried out."""
        known = {one.stream for one in self.counted if isinstance(one, ReconstructionResult) and not one.staged}
        attacked = {one.stream for one in self.reconstructions if not one.staged}
        return tuple(stream for stream in dict.fromkeys([*self.streams, *sorted(attacked)]) if stream not in known)

    @property
    def headline(self) -> Headline | None:
        """The worst over attacks, streams, crops and kinds of payload; None, not known, where of some stream nothing is."""
        return None if self.unknown else self.at_least

    @property
    def at_least(self) -> Headline | None:
        """The worst of what is known, though of some stream nothing may be: the leakage is no less. None where nothing is."""
        found = [(value, name, one) for one in self.counted for name, value in one.normalised.items()]
        if not found:
            return None
        value, name, one = max(found, key=lambda each: each[0])
        stream = one.stream if isinstance(one, ReconstructionResult) else ""
        low, high = one.interval(name) or (None, None)
        return Headline(
            value=min(value, 1.0), low=low, high=high, indicator=name, attack=one.attack, stream=stream, by=one.by
        )

    def worst(self, what: What) -> ReconstructionResult | None:
        """The attack that counts and gives away most of images or of masks."""
        own = [
            one for one in self.counted if isinstance(one, ReconstructionResult) and not one.staged and one.what == what
        ]
        return max(own, key=lambda each: each.leakage, default=None)
