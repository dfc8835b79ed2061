"""TOML in, frozen models out. Everything is checked here once; unknown keys are refused with the allowed ones.

A scenario file names its sites; each name is a folder ``<sites>/<name>/site.toml``, looked for beside the scenario's folder
(``simulations/x.toml`` -> ``sites/``) or beside that one's. The resolved scenario holds the site files' content, so it
stands on its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from fedprivseg.core.comparison_config import CompareConfig, ShiftConfig
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.fault_config import SERVER, FaultConfig
from fedprivseg.core.files import is_companion
from fedprivseg.core.kinds import IMAGE_CODE, ProtectableKind
from fedprivseg.core.model import Frozen
from fedprivseg.core.records import Grid
from fedprivseg.core.site_profile import SiteProfile
from fedprivseg.core.stage_config import EVERY, StageConfig, Terms
from fedprivseg.core.study_config import StudyConfig
from fedprivseg.core.task import Scope, SegmentationTask, default_task
from fedprivseg.core.toml_text import Setting, apply_settings, read_toml, read_with_base, shortened
from fedprivseg.core.validation import Name, suggestion, validated

Place = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,47})?$")]

CedarFile = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,47}\.cedar$")]

GRID_STEP = 16
"""Networks halve the grid four times, so height and width are multiples of this (seed method, Table 2)."""


class SiteConfig(Frozen):
    """One hospital's public description.

    ``centre`` chooses its subjects: a number of the Centre column of the M&Ms table, or what another data set calls the place;
    empty: the hospital's own name.
    ``policy`` is the content of the hospital's ``policy.toml`` (see `policy.profile`), empty if it has none; a simulation puts
    it into its simulated hospital's folder, where the gate reads it. A real hospital's gate reads the hospital's own file.
    ``domain``: the security domain of the hospital's network (T/SCGS 313008-2024 clause 5.3.2-c), empty if none is stated.
    ``cedar``: the files of its folder ``cedar/`` by name, the hospital's own policies on access (`policy.access`), likewise.
    ``labels``: what the labels in the hospital's mask files stand for, such as ``{ 1 = "wall", 2 = "cavity" }``; empty for the
    order of the task. It is about what is read: masks that are written, predictions too, have the order of the task.
    ``profile``: how it computes, how it is connected and when it is there, for the virtual clock alone; None where nobody said.
    """

    name: Name
    centre: Annotated[int, Field(ge=1, le=99)] | Place = ""
    title: str = ""
    vendor: str = ""
    domain: Name | Literal[""] = ""
    labels: dict[int, str] = Field(default_factory=dict)
    policy: dict[str, Any] = Field(default_factory=dict)
    cedar: dict[CedarFile, str] = Field(default_factory=dict)
    profile: SiteProfile | None = None

    @property
    def place(self) -> int | str:
        """What its subjects have as their centre (`records.Subject.centre`)."""
        return self.centre or self.name

    @property
    def order(self) -> tuple[str, ...]:
        """What the labels 1, 2, 3... in the hospital's mask files stand for; empty for the order of the task."""
        return tuple(self.labels[label] for label in sorted(self.labels))

    def refuse_labels(self, task: SegmentationTask) -> None:
        """Raises ScenarioError unless its labels name each structure of `task` once, or none."""
        numbers = [structure.label for structure in task.structures]
        if self.labels and (sorted(self.labels) != numbers or sorted(self.labels.values()) != sorted(task.names)):
            example = ", ".join(
                f'{label} = "{name}"' for label, name in zip(numbers, reversed(task.names), strict=True)
            )
            raise ScenarioError(
                f"labels of site {self.name!r} must name each of {', '.join(task.names)} once, for the labels "
                f"{', '.join(map(str, numbers))}, such as {{ {example} }}"
            )


class DataConfig(Frozen):
    """Where images come from.

    Attributes:
        source: a phantom (``"phantom"``, ``"phantom-brain"``), or the folder of a release.
        format: the layout of that folder, such as ``"mnms"`` or ``"nnunet"``; empty: found out from its files.
        channel: which channel of a release of several, by its name or its number from 0; empty: the first.
        subjects: labelled subjects per centre of a phantom.
        seed: that of a phantom and of a split by patient. It is not the run's, so runs of different seeds share data and
            splits.
        split: ``"release"`` trains and tests on whom the release says; ``"by-patient"`` deals a centre's labelled subjects;
            ``"folds"`` deals them into `folds` parts for cross-validation, of which `fold` is the test.
        test_fraction: the share of them that a split by patient gives to the test.
        folds: into how many parts a centre's labelled subjects are dealt, 2 to 20. Over all parts each is tested once.
        fold: which of them is the test, from 0.
        most_training: the most subjects that a site trains on, drawn from `seed`; of fewer, some of those of more. None: all.
        unlabelled: sites whose training subjects count as having no masks, to see how a method serves such a site.
    """

    source: str = "phantom"
    format: Name | Literal[""] = ""
    channel: Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)] = ""
    subjects: int = Field(default=9, ge=2, le=500)
    seed: int = Field(default=0, ge=0)
    split: Literal["release", "by-patient", "folds"] = "release"
    test_fraction: float = Field(default=0.3, ge=0.0, lt=1.0)
    folds: int = Field(default=4, ge=2, le=20)
    fold: int = Field(default=0, ge=0)
    unlabelled: tuple[Name, ...] = ()
    most_training: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _of_the_folds(self) -> DataConfig:
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}; of {self.folds} folds it is 0 to {self.folds - 1}")
        return self


class GridConfig(Frozen):
    """The network grid: pixels (multiples of 16) and their edge in mm."""

    height: int = Field(default=128, ge=GRID_STEP, le=1024)
    width: int = Field(default=128, ge=GRID_STEP, le=1024)
    spacing: float = Field(default=1.6, gt=0.1, le=10.0)

    @field_validator("height", "width")
    @classmethod
    def _divisible(cls, value: int) -> int:
        if value % GRID_STEP:
            low = value // GRID_STEP * GRID_STEP
            raise ValueError(f"must be divisible by {GRID_STEP}; the nearest are {low} and {low + GRID_STEP}")
        return value

    def grid(self) -> Grid:
        """The same as a record."""
        return Grid(self.height, self.width, self.spacing)


class MethodConfig(Frozen):
    """Which method, which of its variants, and the parameters that differ from that variant's defaults."""

    name: Name
    variant: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class ProtectionConfig(Frozen):
    """A protection, the kinds of payload that it is for, and the parameters that differ from its defaults."""

    name: Name
    of: tuple[ProtectableKind, ...] = Field(default=(IMAGE_CODE,), min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)


class ResourceConfig(Frozen):
    """What the simulation may use: ``cpus`` in all, ``sites_at_once`` of them working side by side, ``gpus``, memory in GiB.

    The number of torch threads follows from it (cpus / sites_at_once at a site, at least 1; cpus at the server), and sums
    depend on the number of threads in their last bits: that is why these stand in the scenario and not on the machine.
    More sites at once than cpus share these: three equal sites take 1.5 times one site's work on 2 cpus, and 2 times when
    only two of them may work at once. Each takes memory of its own.
    """

    cpus: int = Field(default=2, ge=1, le=1024)
    sites_at_once: int = Field(default=2, ge=1, le=1024)
    gpus: float = Field(default=0.0, ge=0.0, le=64.0)
    memory_gib: float = Field(default=4.0, ge=1.0)
    ray_address: str = Field(
        default="",
        pattern=r"^(auto|[A-Za-z0-9.-]+:[0-9]{1,5})?$",
        description="a Ray cluster to join, host:port or auto for the one of this machine; empty: Ray begins with the run",
    )

    @property
    def site_threads(self) -> int:
        """torch threads of one site."""
        return max(1, self.cpus // self.sites_at_once)


RawSharing = Literal["forbidden", "allowed"]


class AdmissionConfig(Frozen):
    """How much a method may give away before a policy admits it. No standard names numbers; these defaults are ours, and a
    policy may set its own. Each is the largest value that passes."""

    headline: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="the worst of all but attributes, each from 0 for chance to 1 for everything",
    )
    image_leakage: float = Field(default=0.15, ge=0, le=1, description="normalised leakage of images, worst attack")
    mask_leakage: float = Field(default=0.30, ge=0, le=1, description="normalised leakage of masks, worst attack")
    recognised: float = Field(
        default=0.10, ge=0, le=1, description="share of slices whose patient is found, above chance"
    )
    linkage: float = Field(default=0.65, ge=0.5, le=1, description="AUC of telling whose codes belong together")
    attribute: float = Field(
        default=0.10, ge=0, le=1, description="accuracy on an attribute, above the commonest value"
    )
    membership: float = Field(default=0.60, ge=0.5, le=1, description="AUC of telling who was trained on")


class PolicyConfig(Frozen):
    """What the simulated hospitals' gates are to be stricter in than their own policies; more open they cannot be made.

    ``raw_sharing = "allowed"``: the study asks for raw images and masks, for the pooled reference line, and gets them from
    sites whose own policy allows it. ``restrict``: for a site's name, or ``all``, a policy as in a ``policy.toml``; the site
    then lets out what both allow.
    """

    raw_sharing: RawSharing = "forbidden"
    admission: AdmissionConfig = AdmissionConfig()
    restrict: dict[Name, dict[str, Any]] = Field(default_factory=dict)


class ServerConfig(Frozen):
    """``domain``: the security domain of the server as the simulated hospitals know it; empty: none of theirs. A real hospital
    states it in its own station, and takes no scenario's word for it."""

    domain: Name | Literal[""] = ""


class ReportConfig(Frozen):
    """``images``: whether the report may show slices and codes. In a deployment between real hospitals it is false."""

    images: bool = True


class Scenario(Frozen):
    """One question, completely stated. Frozen; its SHA-256 names it."""

    name: Name
    question: str = ""
    seed: int = Field(default=0, ge=0, lt=2**31)
    engine: Literal["ray", "inline", "deployment"] = "ray"
    quorum: int = Field(
        default=1, ge=1, description="fewest sites with which the run goes on when others fail or are excluded"
    )
    deadline_s: float = Field(default=86_400.0, gt=0, description="longest wait for one answer of a site, in seconds")
    stages: dict[str, StageConfig] = Field(
        default_factory=dict,
        description="by action, or for 'all': how long answers are waited for, and how few are enough",
    )
    rejoin: Literal["next-run", "next-round"] = Field(
        default="next-run",
        description="when a site that failed is asked again: when the same command goes on with an unfinished run, or already "
        "before the next round of a method that trains in rounds",
    )
    faults: tuple[FaultConfig, ...] = Field(default=(), description="what goes wrong, in a simulation")
    sites: tuple[SiteConfig, ...] = Field(min_length=1)
    task: SegmentationTask = Field(default_factory=default_task)
    data: DataConfig = DataConfig()
    grid: GridConfig = GridConfig()
    shift: ShiftConfig = ShiftConfig()
    method: MethodConfig
    protections: tuple[ProtectionConfig, ...] = Field(
        default=(), description="what every site does to codes before its gate, in this order"
    )
    resources: ResourceConfig = ResourceConfig()
    policy: PolicyConfig = PolicyConfig()
    study: StudyConfig = StudyConfig()
    server: ServerConfig = ServerConfig()
    report: ReportConfig = ReportConfig()
    compare: CompareConfig = CompareConfig()

    @model_validator(mode="after")
    def _distinct(self) -> Scenario:
        names = [site.name for site in self.sites]
        if len(set(names)) < len(names):
            raise ValueError(f"a site is named twice: {', '.join(names)}")
        if unknown := sorted(set(self.policy.restrict) - {*names, "all"}):
            raise ValueError(f"policy.restrict names {unknown[0]!r}; allowed are 'all' and: {', '.join(sorted(names))}")
        if self.quorum > len(names):
            raise ValueError(f"quorum is {self.quorum} but the scenario has {len(names)} sites")
        if self.faults and self.engine == "deployment":
            raise ValueError('faults are simulated, and engine is "deployment"; engines that simulate are: inline, ray')
        if unknown := sorted({fault.party for fault in self.faults} - {*names, SERVER}):
            raise ValueError(
                f"faults name the party {unknown[0]!r}; allowed are {SERVER!r} and: {', '.join(sorted(names))}"
            )
        for action, stage in self.stages.items():
            if (stage.quorum or 0) > len(names):
                raise ValueError(f"stages.{action}.quorum is {stage.quorum} but the scenario has {len(names)} sites")
        return self

    def terms(self, action: str) -> Terms:
        """How the server waits for the answers to `action`."""
        stated: dict[str, Any] = {"deadline_s": self.deadline_s, "quorum": self.quorum}
        for name in (EVERY, action):
            stated |= self.stages.get(name, StageConfig()).model_dump(exclude_none=True)
        return Terms(**stated)

    @property
    def scope(self) -> Scope:
        """Its grid and task."""
        return Scope(self.grid.grid(), self.task)

    @property
    def run_name(self) -> str:
        """What a folder of its run is called: name, method, variant, fold and seed. What the name or the method says already is
        not said again: ``quickstart-privacy-sf-improved-0``, but ``fedavg-0``, ``fedavg-fold2-0`` and
        ``coded-paper-privacy-sf-0``."""
        said: list[str] = self.name.split("-")
        for words in (self.method.name.split("-"), self.method.variant.split("-")):
            if words not in ([""], ["default"]) and not _within(words, said):
                said += words
        fold = [f"fold{self.data.fold}"] if self.data.split == "folds" else []
        return "-".join([*said, *fold, str(self.seed)])

    @property
    def folder(self) -> Path:
        """Where its run goes if nobody says otherwise."""
        return Path("runs") / self.run_name

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON. What changes no result is left out: the engine and its cluster, who may look at a
        record at a site, what the virtual clock supposes of a site, how the run stands in a comparison, and the words and
        colours of the task."""
        looks = {"structures": {"__all__": {"meaning", "colour", "line"}}, "time_points": {"__all__": {"meaning"}}}
        content = self.model_dump(
            mode="json",
            exclude={
                "engine": True,
                "compare": True,
                "resources": {"ray_address"},
                "sites": {"__all__": {"cedar", "profile"}},
                "task": looks | {"slice": True, "aim": True},
            },
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _within(words: Sequence[str], said: Sequence[str]) -> bool:
    """Whether `words` stand one after the other in `said`."""
    return any(list(said[start : start + len(words)]) == list(words) for start in range(len(said)))


def read_site(folder: Path, name: str) -> SiteConfig:
    """The site `name` of the folder of sites. Raises ScenarioError naming the sites that exist."""
    known = site_names(folder)
    if name not in known:
        raise ScenarioError(
            f"unknown site {name!r}{suggestion(name, known)}; the sites of {folder} are: {', '.join(known) or 'none'}. "
            "Add a folder with a site.toml, or run `fedprivseg init DIR` for the five M&Ms centres."
        )
    path = folder / name / "site.toml"
    content = read_toml(path)
    if "policy" in content:
        raise ScenarioError(f"{path}: a site's policy stands in a file of its own, policy.toml beside it")
    if "cedar" in content:
        raise ScenarioError(f"{path}: a site's policies on access stand in files of their own, cedar/*.cedar beside it")
    rules = path.with_name("policy.toml")
    own = {each.name: _text(each) for each in sorted(path.with_name("cedar").glob("*.cedar")) if not is_companion(each)}
    site = validated(SiteConfig, {**content, "policy": read_toml(rules) if rules.exists() else {}, "cedar": own}, path)
    if site.name != name:
        raise ScenarioError(f"{path}: name is {site.name!r}, but its folder is {name!r}; make them equal")
    return site


def read_sites(folder: Path) -> tuple[SiteConfig, ...]:
    """All sites of a folder of sites, by name. Raises ScenarioError, also for a folder without a site."""
    names = site_names(folder)
    if not names:
        raise ScenarioError(f"{folder} holds no site; give a folder of sites, each a folder with a site.toml")
    return tuple(read_site(folder, name) for name in names)


def label_orders(sites: Sequence[SiteConfig], task: SegmentationTask) -> dict[str, tuple[str, ...]]:
    """Centre, as text -> what the labels in its masks stand for, where a site states it. Raises ScenarioError if two sites of
    one centre differ in it, or if one does not name the structures of `task`."""
    orders: dict[str, tuple[str, ...]] = {}
    for site in sites:
        site.refuse_labels(task)
        if orders.setdefault(str(site.place), site.order) != site.order:
            raise ScenarioError(
                f"sites of centre {site.place} state different labels; one release is read in one order"
            )
    return {place: order for place, order in orders.items() if order}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as fault:
        raise ScenarioError(f"{path} cannot be read: {type(fault).__name__}") from None


def site_names(folder: Path) -> list[str]:
    """The names of the sites that a folder of sites holds, sorted."""
    return sorted(path.parent.name for path in folder.glob("*/site.toml"))


def read_scenario(path: Path, settings: Sequence[Setting] = (), *, sites_folder: Path | None = None) -> Scenario:
    """The scenario of a file over its base, with settings applied and its sites read. Raises ScenarioError."""
    content = apply_settings(read_with_base(path), settings)
    # Beside the scenario's folder; a folder of scenarios may itself lie in simulations/.
    homes = [home / "sites" for home in path.resolve().parent.parents[:2]]
    folder = sites_folder or next((home for home in homes if home.is_dir()), homes[0])
    names = content.get("sites", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise ScenarioError(
            f'{path}: sites must be a list of site names, such as ["centre1", "centre2"]; given {shortened(repr(names))}'
        )
    content["sites"] = [read_site(folder, name).model_dump() for name in names]
    return validated(Scenario, content, path)
