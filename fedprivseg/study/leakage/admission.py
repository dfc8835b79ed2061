"""How much a method may give away before a run is admitted, and who says so: the scenario, or the policy of an attacked site.

The stricter counts, indicator by indicator, as in `governance.policy.profile.meet`: no scenario can widen what a hospital
admits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.admission_table import Indicator, admission
from fedprivseg.core.config import AdmissionConfig
from fedprivseg.core.errors import RequestError
from fedprivseg.core.leakage_result import Leakage
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.policy.profile import read_policy

NOTHING = AdmissionConfig(
    headline=0, image_leakage=0, mask_leakage=0, recognised=0, linkage=0.5, attribute=0, membership=0.5
)
"""What a site admits whose policy cannot be read: no leakage, and no guess better than chance."""

SCENARIO = "the scenario"


@dataclass(frozen=True)
class Thresholds:
    """The strictest thresholds.

    Attributes:
        limits: of each indicator.
        whose: by indicator, who set it.
    """

    limits: AdmissionConfig
    whose: dict[str, str]


def strictest(run: Path, scenario: AdmissionConfig, sites: Iterable[str]) -> Thresholds:
    """The thresholds for attacks on `sites` in the folder `run`: of each indicator the lowest among the scenario's and those of
    the attacked sites' policies. Where several say the same it is the scenario's, then that of the first site by name."""
    words = [(SCENARIO, scenario), *(_of(run, site) for site in sorted(sites))]
    lowest = {name: min(words, key=lambda word: getattr(word[1], name)) for name in AdmissionConfig.model_fields}
    limits = AdmissionConfig(**{name: getattr(config, name) for name, (_, config) in lowest.items()})
    return Thresholds(limits, {name: who for name, (who, _) in lowest.items()})


def admitted(run: Path, found: Leakage) -> tuple[Indicator, ...]:
    """The admission table of the run in `run`, whose attacks found `found`. Raises FolderError if it holds no run."""
    scenario = read_scenario(run)
    thresholds = strictest(run, scenario.policy.admission, found.sites)
    return admission(found, thresholds.limits, thresholds.whose)


def _of(run: Path, site: str) -> tuple[str, AdmissionConfig]:
    try:
        return f"the policy of {site}", read_policy(RunFolder(run).site(site).policy).admission
    except RequestError:
        return f"{site}, whose policy cannot be read", NOTHING
