"""How long a finished run would take between hospitals of other profiles, without repeating it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.results import read_scenario
from fedprivseg.core.simulated_time import SimulatedTime
from fedprivseg.core.site_profile import SiteProfile
from fedprivseg.core.toml_text import Setting, apply_settings
from fedprivseg.core.validation import suggestion, validated
from fedprivseg.study.clock.exchanges import recorded
from fedprivseg.study.clock.timeline import let_pass

ALL = "all"
"""What stands for every site."""


def simulated_time(run: Path, changes: Sequence[str] = (), deadline_s: float | None = None) -> SimulatedTime:
    """The simulated wall time of the run in the folder `run`.

    Args:
        run: the folder; all orders of the run were answered, or as many as are counted.
        changes: of profiles, such as ``centre2.uplink=10`` or ``all.latency=40``; those of all sites come first.
        deadline_s: longest wait for one answer; None for the scenario's.

    Raises:
        FolderError: there is no run, or it was made by a release that recorded no seconds.
        LedgerError: the server's ledger cannot be read.
        ScenarioError: a change names no site, no key of a profile, or no value that it may have.
    """
    scenario = read_scenario(run)
    profiles = changed(profiles_of(scenario), changes)
    return let_pass(recorded(run), profiles, scenario.seed, deadline_s or scenario.deadline_s)


def profiles_of(scenario: Scenario) -> dict[str, SiteProfile]:
    """By site; a site that states none has the default one."""
    return {site.name: site.profile or SiteProfile() for site in scenario.sites}


def changed(profiles: dict[str, SiteProfile], changes: Sequence[str]) -> dict[str, SiteProfile]:
    """`profiles` with `changes`. Raises ScenarioError."""
    content = {name: profile.model_dump(exclude_none=True) for name, profile in profiles.items()}
    for change in sorted(changes, key=lambda each: not each.startswith(f"{ALL}.")):
        site, dot, _ = change.partition("=")[0].partition(".")
        if not dot or (site != ALL and site not in profiles):
            names = ", ".join(profiles)
            raise ScenarioError(
                f"--site wants SITE.KEY=VALUE, such as {next(iter(profiles))}.uplink=10; given {change!r}"
                f"{suggestion(site, list(profiles))}. Sites are: {names}, or {ALL} for every one; keys are: "
                f"{', '.join(sorted(SiteProfile.model_fields))}"
            )
        for name in profiles if site == ALL else (site,):
            own: Setting = f"{name}{change.removeprefix(site)}"
            apply_settings(content, [own])
    return {name: validated(SiteProfile, values, f"the profile of {name}") for name, values in content.items()}
