"""What of a run's sites is to be destroyed, and when: the terms of a site's policy on a day that is given (5.7-b, 5.8-b).

The days come from the site's ledger and agreement, the objects from its files: what is gone has no term any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from fedprivseg.core.errors import RequestError
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.policy.agreement import Agreement, read_agreement
from fedprivseg.governance.policy.levels import DataClass
from fedprivseg.governance.policy.profile import SitePolicy, read_policy
from fedprivseg.governance.policy.retention import Duty, Kept, Rule, Schedule, Term, duties
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.vault import POLICY

_ALL = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Review:
    """What a site holds on `today`. term: days, None if its policy states none; then nothing is ever due. duties: in the order
    of their days, those that are due first."""

    site: str
    today: date
    term: int | None
    kept: tuple[Kept, ...]
    duties: tuple[Duty, ...]

    @property
    def due(self) -> tuple[Duty, ...]:
        """Those whose day has come."""
        return tuple(duty for duty in self.duties if duty.day <= self.today)


def review(run: Path, site: str, lines: Sequence[Line], today: date | None = None) -> Review:
    """What `site` holds of its subjects in the run's folder, and until when it may. lines: of its ledger, which verifies.
    today: None for the site's own day. Raises RequestError if it has no policy that can be read, or a line's day is none."""
    home = RunFolder(run).site(site).path
    station = SiteConfiguration.read(home / "station.json")
    policy = read_policy(home / POLICY)
    day = today or station.today or date.today()
    kept = tuple(_kept(run, site, lines, read_agreement(SiteFolder(home).agreement)))
    found = duties(kept, _schedule(policy)) if policy.retention_days is not None else ()
    return Review(site, day, policy.retention_days, kept, found)


def enrolled(lines: Iterable[Line]) -> date | None:
    """The first day on which a site took somebody in, as its ledger says; None if it never did. A line that states no day
    is of the day on which it was written."""
    days = [_day(line, "day") for line in lines if line.event == "enrolment"]
    return min(days, default=None)


def _schedule(policy: SitePolicy) -> Schedule:
    """The policy's one term as a rule for each class: the term begins on the day after, so its last day is still within it."""
    basis = f"the site's policy keeps what was made of patients' data for {policy.retention_days} days"
    term = Term(days=policy.retention_days or 0)
    return Schedule(
        rules=tuple(Rule(data_class=each, levels=_ALL, destroy_after=term, basis=basis) for each in DataClass)
    )


def _kept(run: Path, site: str, lines: Sequence[Line], agreement: Agreement | None) -> Iterator[Kept]:
    """The objects that are there, each with the day from which its term counts."""
    since = enrolled(lines)
    if since is None:
        return
    home, start = RunFolder(run).site(site).path, since + timedelta(days=1)
    data_class, level = sensitivity(lines)
    if inventory.everything(home) or inventory.lists(home):
        yield Kept("what the site's vault and predictions hold", data_class, level, start)
    if inventory.shards(run, site) or inventory.metrics(run, site):
        end = None if agreement is None else agreement.terms.end + timedelta(days=1)
        because = "" if agreement is None else "the data-use agreement under which the server got it has ended"
        yield Kept("what the server has of the site", data_class, level, start, ends=end, ends_because=because)
    for line in lines:
        if line.event == "archive" and "keep_until" in line.facts:
            end = _day(line, "keep_until")
            because = f"the archive that line {line.index} of the ledger tells of is kept until that day"
            yield Kept(f"the archive of line {line.index}", data_class, level, start, True, end, because)


def sensitivity(lines: Iterable[Line]) -> tuple[DataClass, int]:
    """Class and level of what was taken in, the highest of all times. What has no class counts as of the strictest; images of
    patients are of level 3 at least (5.5)."""
    taken = [line.facts for line in lines if line.event == "enrolment"]
    classes = {str(facts.get("class", "unknown")) for facts in taken}
    level = max((one for facts in taken if isinstance(one := facts.get("level"), int)), default=0)
    if len(classes) == 1 and (only := classes.pop()) in set(DataClass):
        return DataClass(only), max(level, 3)
    return DataClass.BIOMETRIC, max(level, 3)


def _day(line: Line, fact: str) -> date:
    try:
        return date.fromisoformat(str(line.facts.get(fact, line.time[:10])))
    except ValueError:
        raise RequestError(f"line {line.index} of the ledger of {line.site} states no day that can be read") from None
