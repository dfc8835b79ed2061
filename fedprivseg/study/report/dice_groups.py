"""How well each group of patients was segmented: by sex, age band, vendor and disease, where the release tells.

Only a simulation can say so: it reads who the subjects are at the simulated sites, after the run. Between real hospitals no
attribute leaves, and a table like this would be another release. Of fewer than `LEAST` patients nothing is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedprivseg.core.errors import FedprivsegError
from fedprivseg.core.records import Subject
from fedprivseg.core.results import Result, read_result, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.study.leakage.groups import LEAST, grouped


@dataclass(frozen=True)
class GroupDice:
    """The patients of one group at all sites. dice: the mean over them; None if they are too few to be told of."""

    attribute: str
    group: str
    patients: int
    dice: float | None


@dataclass(frozen=True)
class DiceGroups:
    """rows: by attribute and group. left_out: the sites that measured and of whose subjects nothing could be read."""

    rows: tuple[GroupDice, ...] = ()
    left_out: tuple[str, ...] = ()


def dice_by_group(folder: Path) -> DiceGroups:
    """Dice by group in the finished run in `folder`: empty for one between real hospitals. Raises FolderError if it has no
    result."""
    result = read_result(folder)
    if result.engine not in ("ray", "inline"):
        return DiceGroups()
    people: list[Subject] = []
    values: list[float] = []
    left_out = []
    for name in result.sites:
        own = _dice(result, name)
        if not own:
            continue
        subjects = _tested(folder, name)
        if len(subjects) != len(own):
            left_out.append(name)
            continue
        people += subjects
        values += own
    rows = []
    for (attribute, group), members in grouped(people).items():
        known = np.array(values)[members]
        known = known[np.isfinite(known)]
        if len(known):
            mean = float(known.mean()) if len(known) >= LEAST else None
            rows.append(GroupDice(attribute, group, len(known), mean))
    return DiceGroups(tuple(rows), tuple(left_out))


def _dice(result: Result, site: str) -> list[float]:
    """Of each test subject of a site the mean over time points and structures, NaN where none is defined."""
    found: dict[str, list[float]] = {}
    for row in result.metrics:
        if row.site == site:
            found.setdefault(row.subject, []).append(np.nan if row.dice is None else row.dice)
    return [float(np.nanmean(cells)) if np.isfinite(cells).any() else float("nan") for cells in found.values()]


def _tested(folder: Path, site: str) -> Sequence[Subject]:
    """The test subjects of a simulated site in the order of its measures; nobody where its folder does not tell any more."""
    home = RunFolder(folder).site(site)
    try:
        found = SiteContext(SiteConfiguration.read(home.configuration), read_scenario(folder))
        return found.cohort.test if found.notes.has(PARTICIPANTS) else ()
    except (FedprivsegError, OSError, ValueError):  # destroyed, sealed under another key: the page names the site
        return ()
