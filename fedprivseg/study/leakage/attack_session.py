"""One site under attack, with all that the evaluation knows: what was released, the ground truth, what attackers hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from fedprivseg.attacks.base import Attack, Effort, Encode, Progress
from fedprivseg.attacks.metrics import Truth, evaluate, leakage_of_each, rank1
from fedprivseg.core.config import Scenario
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, KindSpec
from fedprivseg.core.leakage_result import UPDATES, ReconstructionResult
from fedprivseg.core.measures import share_interval, ssim
from fedprivseg.core.method_card import Sent, What
from fedprivseg.core.seeds import derive
from fedprivseg.core.task import SegmentationTask
from fedprivseg.methods.method import CodedMethod, Method
from fedprivseg.methods.release_order import kept_order
from fedprivseg.protections import Shield, resolve
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.ground_truth import GroundTruth, ground_truth
from fedprivseg.study.leakage.groups import leakage_by_group
from fedprivseg.study.leakage.released import Released

MOST_AUXILIARY = 240
"""Pictures that an adversary holds at most, spread evenly over what other sites have."""

CODE_KIND: Mapping[What, KindSpec] = {"images": IMAGE_CODE, "masks": MASK_CODE}

Side = Literal["train", "test"]


@dataclass(frozen=True)
class AttackSession:
    """The attacks on one site.

    Attributes:
        run: the run's folder.
        sites: the runtimes of all sites, by name.
        victim: the name of the attacked one.
    """

    run: Path
    scenario: Scenario
    method: Method
    sites: Mapping[str, SiteRuntime]
    victim: str
    effort: Effort
    progress: Progress

    @property
    def site(self) -> SiteRuntime:
        """The attacked site's."""
        return self.sites[self.victim]

    @property
    def others(self) -> list[SiteRuntime]:
        """Those of the other sites, by name."""
        return [self.sites[name] for name in sorted(self.sites) if name != self.victim]

    @cached_property
    def released(self) -> Released:
        """What the site released."""
        return Released(self.run, self.victim)

    def seed(self, *names: str | int) -> int:
        """The seed of an attack's draws."""
        return derive(self.scenario.seed, "attacks", self.victim, *names)

    def order(self, sent: Sent) -> np.ndarray:
        """Which slice stands at each place of the first view of a stream, (N,) int64: the judge knows it, no adversary does."""
        return kept_order(self.site.vault, sent, 0, len(ground_truth(self.site, sent.side).images))

    def codes(self, sent: Sent, views: int = 1) -> np.ndarray:
        """The first `views` views of a stream, (views * N, C, h, w) float32, as they came."""
        wanted = views * len(ground_truth(self.site, sent.side).images)
        return self.released.rows(sent.action, wanted).astype(np.float32)

    @property
    def keyed(self) -> bool:
        """Whether a protection of the run has a secret that it turns back: answers may then come under another key."""
        return any(resolve(config).reversible for config in self.scenario.protections)

    def query(self, what: What, *, another_key: bool = False) -> Encode:
        """The site's encoder with its protections; every call is a payload of its own.

        another_key: under keys of another release, as whoever asks after this run is answered, and not under those of this one.
        """
        method, calls, shield = self.method, count(), self.site.shield
        assert isinstance(method, CodedMethod), "asked where there are codes"
        if another_key:
            shield = Shield(self.scenario.protections, self.seed("another key"), self.victim)

        def query(pictures: np.ndarray) -> np.ndarray:
            codes = method.encode_pictures(self.site, what, pictures)
            return shield.apply(CODE_KIND[what], codes, ("query", next(calls)))[0].astype(np.float32)

        return query

    def auxiliary(self, what: What) -> np.ndarray:
        """What adversaries hold: pictures (M, K, H, W) of the other sites' training subjects."""
        pictures = np.concatenate(
            [pictures_of(ground_truth(other, "train"), what, self.scenario.task) for other in self.others]
        )
        spread = np.linspace(0, len(pictures) - 1, min(MOST_AUXILIARY, len(pictures))).round().astype(int)
        return pictures[spread]

    def result(
        self,
        attack: Attack,
        setting: str,
        what: What,
        side: Side,
        found: np.ndarray,
        truth: Truth,
        seconds: float,
        *,
        own: np.ndarray | None = None,
        staged: bool = False,
        stream: str = UPDATES,
    ) -> ReconstructionResult:
        """How much a reconstruction shows.

        Args:
            attack: which made it.
            setting: in which of its settings.
            what: of what it is.
            side: of whose slices.
            found: the reconstruction, (N, K, H, W).
            truth: what it should show.
            seconds: how long it took.
            own: the reconstruction of the site's own decoder.
            staged: whether it is from something that was never released.
            stream: from which of the site's streams.
        """
        gallery, owners, mine = self._gallery(what, side, truth.subjects)
        hits, auxiliary = rank1(found, gallery, owners, mine), self.auxiliary(what)
        low, high = (None if np.isnan(bound) else bound for bound in share_interval(hits, truth.subjects))
        people = ground_truth(self.site, side).people
        return ReconstructionResult(
            **attack.identity,
            setting=setting,
            site=self.victim,
            what=what,
            stream=stream,
            slices=len(found),
            subjects=len(np.unique(truth.subjects)),
            metrics=evaluate(found, truth, auxiliary, own),
            rank1=float(hits.mean()),
            rank1_low=low,
            rank1_high=high,
            chance=float((owners[:, None] == mine[None]).mean()),
            groups=leakage_by_group(people, truth.subjects, leakage_of_each(found, truth, auxiliary), hits),
            seconds=seconds,
            staged=staged,
        )

    def examples(self, what: What, truth: Truth, found: np.ndarray, own: np.ndarray | None) -> dict[str, np.ndarray]:
        """Best, median and worst of the slices that show some structure, for the report of a simulation."""
        score = ssim(found.mean(axis=1), truth.pictures.mean(axis=1))
        shown = np.flatnonzero(truth.masks.any(axis=(1, 2)))
        order = shown[np.argsort(score[shown], kind="stable")][::-1]
        chosen = order[[0, len(order) // 2, -1]]
        arrays = {"truth": truth.pictures[chosen], "drawn": found[chosen]}
        arrays |= {} if own is None else {"own": own[chosen].astype(np.float32)}
        return {f"{self.victim}.{what}.{name}": value for name, value in arrays.items()}

    def _gallery(self, what: What, side: Side, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(pictures of every site's subjects of that side, whose they are, whose the attacked ones are)."""
        pictures, owners, first, mine = [], [], 0, own
        for name in sorted(self.sites):
            known = ground_truth(self.sites[name], side)
            pictures.append(pictures_of(known, what, self.scenario.task))
            owners.append(known.subjects + first)
            if name == self.victim:
                mine = own + first
            first += len(known.people)
        return np.concatenate(pictures), np.concatenate(owners), mine


def pictures_of(known: GroundTruth, what: What, task: SegmentationTask) -> np.ndarray:
    """(N, 1, H, W) images, or (N, K, H, W) masks with one channel a structure; float32."""
    if what == "images":
        return known.images[:, None]
    return (known.masks[:, None] == np.arange(1, task.classes)[:, None, None]).astype(np.float32)
