"""The life of one patient's data in a run: every artefact made of it, where, under whose responsibility and which protections.

After section 3.2 of Chen et al. 2024 (doi 10.12114/j.issn.1007-9572.2023.0897), which asks that data can be traced through its
whole life cycle, with the way and degree of protection and the responsibility in each link of it; and T/SCGS 313008-2024
clause 5.6.2-d (audit). Nothing is recorded for it: it is read from the ledgers, whose lines it names, and from what lies in
the run's folder now.

Here is what a trace says. `site_side` makes it at a site, which alone can tell who a pseudonym is; `server_side` from the
server's side, for which a life begins and ends with a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedprivseg.core.config import Scenario
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.model import Frozen
from fedprivseg.governance.ledger.line import Line

Lane = Literal["site", "gate", "server"]
State = Literal["kept", "gone", "passed", "refused", "end"]
Sort = Literal[
    "file", "array", "model", "code", "weights", "answer", "prediction", "measures", "raw", "status", "archive", "end"
]

LANES: tuple[Lane, ...] = ("site", "gate", "server")

PLAIN = "not encrypted at rest"


class Reference(Frozen):
    """A line of a ledger.

    Attributes:
        ledger: a site's name, or ``server``.
        line: its index, from 0.
        time: UTC, ISO 8601.
    """

    ledger: str
    line: int
    event: str
    time: str

    @classmethod
    def to(cls, line: Line) -> Reference:
        """The reference to `line`."""
        return cls(ledger=line.site, line=line.index, event=line.event, time=line.time)

    def __str__(self) -> str:
        return f"{self.ledger}:{self.line}"


class Part(Frozen):
    """One file, shard or payload of an artefact.

    Attributes:
        sha256: of its bytes, empty where no ledger says it.
        here: whether it lies there now; None for what passed and lies nowhere.
    """

    name: str
    sha256: str = ""
    here: bool | None = None


class Artefact(Frozen):
    """One artefact made of the data.

    Attributes:
        id: unique in its trace.
        sort: what it is.
        lane: where it is.
        title: for people.
        act: what made it, in words.
        where: in words.
        holder: who was responsible for it.
        done: what was done to it, step by step.
        protections: what stands between it and others.
        lacking: what does not.
        level: of T/SCGS 313008-2024 clause 5.5, None where no ledger states one.
        time: UTC, ISO 8601, of the line that tells of it.
        parts: of which it consists.
        references: the lines that tell of it.
        made_from: ids of other artefacts.
        state: what became of it.
        ended: the line that tells why it is gone.
    """

    id: str
    sort: Sort
    lane: Lane
    title: str
    act: str
    where: str
    holder: str
    done: tuple[str, ...] = ()
    protections: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    level: int | None = None
    time: str = ""
    parts: tuple[Part, ...] = ()
    references: tuple[Reference, ...] = ()
    made_from: tuple[str, ...] = ()
    state: State = "kept"
    ended: Reference | None = None


class Trace(Frozen):
    """The life of one patient's data or, at the server, of one shard.

    Attributes:
        run: its id.
        side: who traces.
        site: whose data it is.
        method: its title.
        subject: a pseudonym; at the server the shard's SHA-256.
        label: what stands for it in names and titles.
        role: what it was used for.
        artefacts: the oldest first.
        keys: public keys (hex) by holder.
        notes: what cannot be told, in sentences.
    """

    run: str
    side: Literal["site", "server"]
    site: str
    method: str
    subject: str
    label: str
    role: str
    artefacts: tuple[Artefact, ...]
    keys: dict[str, str]
    notes: tuple[str, ...] = ()


def texts(fact: object) -> tuple[str, ...]:
    """A fact that is a list, as texts; nothing if it is none."""
    return tuple(str(each) for each in fact) if isinstance(fact, list) else ()


def sort_of(kind: object) -> Sort:
    """What a payload of this kind is; of a kind that is not known here, data as it is."""
    known = find_kind(kind)
    return "raw" if known is None else known.lineage


def level_of(line: Line) -> int | None:
    """The level that a line states (5.5), None if it states none."""
    level = line.facts.get("level")
    return level if isinstance(level, int) else None


def steps_of(history: Sequence[str], kind: str, scenario: Scenario) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A payload's history, parted into what its method did and how it was protected: a scenario's protections come last in that
    of codes, and all that follows the training in that of weights."""
    protections = sum(kind in config.of for config in scenario.protections)
    count = len(history) - 1 if sort_of(kind) == "weights" else protections
    place = max(0, len(history) - max(0, count))
    return tuple(history[:place]), tuple(history[place:])
