"""One site under attack, with everything that its judge knows: what was released, the truth, and what attackers hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fedprivseg.attacks.base import Effort, Progress
from fedprivseg.attacks.metrics import Truth, judge, recognised
from fedprivseg.core.config import Scenario
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, KindSpec
from fedprivseg.core.leakage_result import Measure, ReconstructionResult
from fedprivseg.core.measures import ssim
from fedprivseg.core.method_card import What
from fedprivseg.core.seeds import derive
from fedprivseg.core.task import SegmentationTask
from fedprivseg.methods.method import Method
from fedprivseg.runtime.site.site_runtime import Known, SiteRuntime
from fedprivseg.study.leakage.released import Released

MOST_AUXILIARY = 240
"""Pictures that an adversary holds at most, spread evenly over what other sites have."""

CODE_KIND: Mapping[What, KindSpec] = {"images": IMAGE_CODE, "masks": MASK_CODE}

Side = Literal["train", "test"]


@dataclass(frozen=True)
class AttackSession:
    """The site `site` of the run in `run`. benches: those of all sites, by name."""

    run: Path
    scenario: Scenario
    method: Method
    benches: Mapping[str, SiteRuntime]
    site: str
    effort: Effort
    progress: Progress

    @property
    def bench(self) -> SiteRuntime:
        """The attacked site's."""
        return self.benches[self.site]

    @property
    def others(self) -> list[SiteRuntime]:
        """Those of the other sites, by name."""
        return [self.benches[name] for name in sorted(self.benches) if name != self.site]

    @cached_property
    def released(self) -> Released:
        """What the site released."""
        return Released(self.run, self.site)

    def seed(self, *names: str | int) -> int:
        """The seed of an attack's draws."""
        return derive(self.scenario.seed, "attacks", self.site, *names)

    def auxiliary(self, what: What) -> np.ndarray:
        """What adversaries hold: pictures (M, K, H, W) of the other sites' training subjects."""
        pictures = np.concatenate(
            [pictures_of(other.known("train"), what, self.scenario.task) for other in self.others]
        )
        spread = np.linspace(0, len(pictures) - 1, min(MOST_AUXILIARY, len(pictures))).round().astype(int)
        return pictures[spread]

    def redrawn(
        self,
        attack: Mapping[str, Any],
        what: What,
        side: Side,
        drawn: np.ndarray,
        truth: Truth,
        seconds: float,
        *,
        own: np.ndarray | None = None,
        staged: bool = False,
    ) -> ReconstructionResult:
        """The verdict on images that an attack drew. attack: the fields of a `ReconstructionResult` that name it. own: what the
        site's own decoder draws."""
        figures = judge(drawn, truth, self.auxiliary(what), self.seed(what), own)
        gallery, owners, mine = self._gallery(what, side, truth.subjects)
        return ReconstructionResult(
            **attack,
            site=self.site,
            what=what,
            slices=len(drawn),
            subjects=len(np.unique(truth.subjects)),
            measures=tuple(Measure(**asdict(figure)) for figure in figures),
            recognised=recognised(drawn, gallery, owners, mine),
            chance=float((owners[:, None] == mine[None]).mean()),
            seconds=seconds,
            staged=staged,
        )

    def examples(self, what: What, truth: Truth, drawn: np.ndarray, own: np.ndarray | None) -> dict[str, np.ndarray]:
        """Best, median and worst of the slices that show some structure, for the report of a simulation."""
        score = ssim(drawn.mean(axis=1), truth.pictures.mean(axis=1))
        shown = np.flatnonzero(truth.masks.any(axis=(1, 2)))
        order = shown[np.argsort(score[shown], kind="stable")][::-1]
        chosen = order[[0, len(order) // 2, -1]]
        arrays = {"truth": truth.pictures[chosen], "drawn": drawn[chosen]}
        arrays |= {} if own is None else {"own": own[chosen].astype(np.float32)}
        return {f"{self.site}.{what}.{name}": value for name, value in arrays.items()}

    def _gallery(self, what: What, side: Side, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(pictures of every site's subjects of that side, whose they are, whose the attacked ones are)."""
        pictures, owners, first, mine = [], [], 0, own
        for name in sorted(self.benches):
            known = self.benches[name].known(side)
            pictures.append(pictures_of(known, what, self.scenario.task))
            owners.append(known.subjects + first)
            if name == self.site:
                mine = own + first
            first += len(known.people)
        return np.concatenate(pictures), np.concatenate(owners), mine


def pictures_of(known: Known, what: What, task: SegmentationTask) -> np.ndarray:
    """(N, 1, H, W) images, or (N, K, H, W) masks with one channel a structure; float32."""
    if what == "images":
        return known.images[:, None]
    return (known.masks[:, None] == np.arange(1, task.classes)[:, None, None]).astype(np.float32)
