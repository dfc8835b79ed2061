"""What a site of a run is to destroy, and when: the term of its policy on a day that is given (clauses 5.7-b, 5.8-b).

The days come from the site's ledger and agreement, what is held from its files: what is gone has no term any more. Nothing is
archived by a term: the one act that falls due is destruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.levels import DataClass
from fedprivseg.governance.policy.profile import read_policy
from fedprivseg.governance.policy.retention import Term
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration


@final
@dataclass(frozen=True)
class Duty:
    """What must be done with something that a site holds, from which day on, and the clause that asks for it."""

    name: str
    act: str
    day: date
    clause: str
    reason: str


@final
@dataclass(frozen=True)
class Review:
    """What a site holds on a day.

    Attributes:
        today: the day.
        term: in days, None if the site's policy states none; then nothing is ever due.
        held: what it holds, by name.
        duties: in the order of their days.
    """

    today: date
    term: int | None
    held: tuple[str, ...]
    duties: tuple[Duty, ...]

    @property
    def due(self) -> tuple[Duty, ...]:
        """Those whose day has come."""
        return tuple(duty for duty in self.duties if duty.day <= self.today)


def review(run: Path, site: str, lines: Sequence[Line], today: date | None = None) -> Review:
    """What a site holds of its subjects in the run's folder, and until when it may.

    Args:
        run: the run's folder.
        site: its name.
        lines: of its ledger, which verifies.
        today: None for the site's own day.

    Raises:
        RequestError: the site has no policy that can be read, or the day of a line cannot be.
    """
    root = RunFolder(run)
    folder = root.site(site)
    configuration = SiteConfiguration.read(folder.configuration)
    term = read_policy(folder.policy).retention_days
    day = today or configuration.today or date.today()
    # Sorted by name within a day.
    held = {name: (end, why) for name, end, why in _held(root, folder, lines)}
    duties = () if term is None else tuple(_duties(held, term, enrolled(lines)))
    return Review(day, term, tuple(held), tuple(sorted(duties, key=lambda duty: (duty.day, duty.name))))


def enrolled(lines: Iterable[Line]) -> date | None:
    """The first day on which a site enrolled somebody, as its ledger says; None if it never did. A line that states no day is
    of the day on which it was written."""
    return min((_day(line, "day") for line in lines if line.event == "enrolment"), default=None)


def sensitivity(lines: Iterable[Line]) -> tuple[DataClass, int]:
    """Class and level of what was enrolled, the highest of all times. What has no class counts as of the strictest; images of
    patients are of level 3 at least (5.5)."""
    facts = [line.facts for line in lines if line.event == "enrolment"]
    classes = {str(each.get("class", "unknown")) for each in facts}
    level = max((one for each in facts if isinstance(one := each.get("level"), int)), default=0)
    if len(classes) == 1 and (only := classes.pop()) in set(DataClass):
        return DataClass(only), max(level, 3)
    return DataClass.BIOMETRIC, max(level, 3)


def _held(run: RunFolder, folder: SiteFolder, lines: Sequence[Line]) -> Iterator[tuple[str, date | None, str]]:
    """What is there: its name, a day on which it must go though its term has not ended, and why."""
    if enrolled(lines) is None:
        return
    if inventory.everything(folder) or inventory.lists(folder):
        yield "what the site's vault and predictions hold", None, ""
    if run.server.shards(folder.name) or inventory.metrics(run.server, folder.name):
        agreement = read_agreement(folder.agreement)
        end = None if agreement is None else agreement.terms.end + timedelta(days=1)
        yield "what the server has of the site", end, "the data-use agreement under which the server got it has ended"
    for line in lines:
        if line.event == "archive" and "keep_until" in line.facts:
            why = f"the archive that line {line.index} of the ledger is about is kept until that day"
            yield f"the archive of line {line.index}", _day(line, "keep_until"), why


def _duties(held: dict[str, tuple[date | None, str]], days: int, since: date | None) -> Iterator[Duty]:
    """The destruction of each. The term begins on the day after enrolment, so that its last day is still within it."""
    if since is None:
        return
    last = Term(days=days).end(since + timedelta(days=1))
    basis = (
        f"Its term ended under the rule: the site's policy keeps derived artefacts of patients' data for {days} days."
    )
    for name, (end, why) in held.items():
        early = end is not None and end < last
        yield Duty(
            name=name,
            act="destroy",
            day=end if early and end else last,
            clause="5.8-b",
            reason=f"It ends before its term: {why}." if early else basis,
        )


def _day(line: Line, fact: str) -> date:
    try:
        return date.fromisoformat(str(line.facts.get(fact, line.time[:10])))
    except ValueError:
        raise RequestError(f"line {line.index} of the ledger of {line.site} states no day that can be read") from None
