"""The life of one patient's data in a run: every form that it took, where, under whose responsibility and which protections.

After section 3.2 of Chen et al. 2024 (doi 10.12114/j.issn.1007-9572.2023.0897), which asks that data can be traced through its
whole life cycle, with the way and degree of protection and the responsibility in each link of it; and T/SCGS 313008-2024
clause 5.6.2-d (audit). Nothing is recorded for it: it is read from the ledgers, whose lines it names, and from what lies in
the run's folder now.

Here is what a trace says. `trace.site` makes it at a site, which alone can tell who a pseudonym is; `trace.server` from the
server's side, for which a life begins and ends with a shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from safetensors import safe_open

from fedprivseg.config import Scenario
from fedprivseg.policy import ledger
from fedprivseg.policy.ledger import Line
from fedprivseg.records import Kind, digest
from fedprivseg.server.federation import LAPSED

Lane = Literal["site", "gate", "server"]
State = Literal["kept", "gone", "passed", "refused", "end"]
Sort = Literal[
    "file", "array", "model", "code", "weights", "answer", "prediction", "measures", "raw", "status", "archive", "end"
]

LANES: tuple[Lane, ...] = ("site", "gate", "server")

MODELS = ("mapping.safetensors", "model.safetensors")
"""What servers call the network that they trained or averaged."""


RESEARCHER = "server (researcher)"
"""Who is responsible for what lies at the server (5.3.2-a)."""

PLAIN = "not encrypted at rest"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(_Frozen):
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


class Part(_Frozen):
    """One piece of a form: a file, a shard, a payload. sha256: of its bytes, empty where no ledger says it. here: whether it
    lies there now; None for what passed and lies nowhere."""

    name: str
    sha256: str = ""
    here: bool | None = None


class Form(_Frozen):
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


class Trace(_Frozen):
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
    forms: tuple[Form, ...]
    keys: dict[str, str]
    notes: tuple[str, ...] = ()


def verified(path: Path, public_hex: str | None = None) -> list[Line]:
    """The lines of the ledger at `path`, none if there is no such file. Raises LedgerError if they do not verify."""
    if not path.exists():
        return []
    ledger.verify(path, public_hex=public_hex)
    return ledger.read(path)


def stated_key(lines: Sequence[Line]) -> str:
    """The public key (hex) that a ledger states in its first line; empty without lines."""
    return str(lines[0].facts.get("public_key", "")) if lines else ""


def texts(fact: object) -> tuple[str, ...]:
    """A fact that is a list, as texts; nothing if it is none."""
    return tuple(str(each) for each in fact) if isinstance(fact, list) else ()


def steps_of(history: Sequence[str], kind: str, scenario: Scenario) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A payload's history, parted into what its method did and how it was protected: a scenario's protections come last in that
    of codes (`site.app`), and all that follows the training in that of weights."""
    if kind in (Kind.WEIGHTS, Kind.MASKED):
        count = len(history) - 1
    else:
        count = sum(kind in config.of for config in scenario.protections)
    place = max(0, len(history) - max(0, count))
    return tuple(history[:place]), tuple(history[place:])


def counted(count: int, noun: str) -> str:
    """``Shard`` for one, ``3 shards`` for three."""
    return noun.capitalize() if count == 1 else f"{count} {noun}s"


def level_of(line: Line) -> int | None:
    """The level that a line states (5.5), None if it states none."""
    level = line.facts.get("level")
    return level if isinstance(level, int) else None


def lapsed(server: Iterable[Line], site: str, after: int) -> Reference | None:
    """The first line of the server's ledger behind line `after` by which consent at `site` no longer stood: it then deleted
    what the site had sent."""
    for line in server:
        if line.index > after and line.facts.get("site") == site and line.facts.get("rule") == LAPSED:
            return Reference.to(line)
    return None


def shard_path(run: Path, site: str, action: str, number: int) -> Path:
    """Where the server's store has a shard."""
    return run / "server" / "codes" / site / action / f"{number:05d}.safetensors"


def is_stored(path: Path, sha256: str) -> bool:
    """Whether the file at `path` is there and has these bytes."""
    return path.exists() and digest(path.read_bytes()) == sha256


def taught_by_shards(run: Path, site: str) -> bool:
    """Whether the network that a server trained on shards was trained on those of `site`; True if there is none to ask."""
    path = run / "server" / MODELS[0]
    if not path.exists():
        return True
    with safe_open(path, framework="np") as file:
        return site in (file.metadata() or {}).get("sites", "").split()


def model_parts(run: Path) -> tuple[Part, ...]:
    """The networks that lie at the server now."""
    paths = [run / "server" / name for name in MODELS]
    return tuple(Part(name=path.name, sha256=digest(path.read_bytes()), here=True) for path in paths if path.exists())
