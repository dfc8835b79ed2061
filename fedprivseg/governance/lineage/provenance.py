"""The life of one patient's data in a run: every form that it took, where, under whose responsibility and which protections.

After section 3.2 of Chen et al. 2024 (doi 10.12114/j.issn.1007-9572.2023.0897), which asks that data can be traced through its
whole life cycle, with the way and degree of protection and the responsibility in each link of it; and T/SCGS 313008-2024
clause 5.6.2-d (audit). Nothing is recorded for it: it is read from the ledgers, whose lines it names, and from what lies in
the run's folder now.

Here is what a trace says. `trace.site` makes it at a site, which alone can tell who a pseudonym is; `trace.server` from the
server's side, for which a life begins and ends with a shard.
"""

from __future__ import annotations

from typing import Literal

from fedprivseg.core.model import Frozen
from fedprivseg.governance.ledger.line import Line

Lane = Literal["site", "gate", "server"]
State = Literal["kept", "gone", "passed", "refused", "end"]
Sort = Literal[
    "file", "array", "model", "code", "weights", "answer", "prediction", "measures", "raw", "status", "archive", "end"
]

LANES: tuple[Lane, ...] = ("site", "gate", "server")


class Reference(Frozen):
    """A line of a ledger. ledger: a site's name, or ``server``. line: its index, from 0. time: UTC, ISO 8601."""

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
    """One piece of a form: a file, a shard, a payload. sha256: of its bytes, empty where no ledger says it. here: whether it
    lies there now; None for what passed and lies nowhere."""

    name: str
    sha256: str = ""
    here: bool | None = None


class Artefact(Frozen):
    """One form that the data took. id: unique in its trace. act: what made it, in words. holder: who was responsible for it.
    done: what was done to it, step by step. protections: what stands between it and others; lacking: what does not. level: of
    T/SCGS 313008-2024 clause 5.5, None where no ledger states one. time: UTC, ISO 8601, of the line that tells of it.
    made_from: ids of the forms that it was made from. ended: the line that tells why it is gone."""

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
    """The life of one patient's data or, at the server, of one shard. subject: a pseudonym; at the server the shard's SHA-256.
    label: what stands for it in names and titles. role: what it was used for. keys: public keys (hex) by holder. notes: what
    cannot be told, in sentences."""

    run: str
    side: Literal["site", "server"]
    site: str
    method: str
    subject: str
    label: str
    role: str
    forms: tuple[Artefact, ...]
    keys: dict[str, str]
    notes: tuple[str, ...] = ()
