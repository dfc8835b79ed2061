"""What a trace is read from on both sides, ledgers, histories and the server's files, and the form that both sides tell of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fedprivseg.core.arrays import facts_of
from fedprivseg.core.config import Scenario
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import digest
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference, Sort
from fedprivseg.governance.policy.context import CONSENT_ENDED

RESEARCHER = "server (researcher)"
"""Who is responsible for what lies at the server (5.3.2-a)."""

PLAIN = "not encrypted at rest"


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
    protections = sum(kind in config.of for config in scenario.protections)
    count = len(history) - 1 if _sort(kind) == "weights" else protections
    place = max(0, len(history) - max(0, count))
    return tuple(history[:place]), tuple(history[place:])


def sort_of(line: Line) -> Sort:
    """What the payload is that a line tells of; of a kind that is not known here, data as it is."""
    return _sort(line.facts.get("kind"))


def _sort(kind: object) -> Sort:
    known = find_kind(kind)
    return "raw" if known is None else known.lineage


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
        if line.index > after and line.facts.get("site") == site and line.facts.get("rule") == CONSENT_ENDED:
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
    told = [facts_of(path) for path in ModelStore(run / "server").paths()]
    named = [facts["sites"].split() for facts in told if "sites" in facts]
    return not named or any(site in sites for sites in named)


def model_parts(run: Path) -> tuple[Part, ...]:
    """The networks that lie at the server now."""
    paths = ModelStore(run / "server").paths()
    return tuple(Part(name=path.name, sha256=digest(path.read_bytes()), here=True) for path in paths)


def answer_form(identity: str, told: Sequence[Line], receipts: Sequence[Line], made_from: str) -> Artefact:
    """The server's answers to a site, in the site's own code. told: the lines of those who answered; receipts: of those who got
    them; made_from: the id of the form that was answered."""
    return Artefact(
        id=identity,
        sort="answer",
        lane="server",
        title="Answers in code",
        act="computed by the segmentation network",
        where="sent back, not kept",
        holder=RESEARCHER,
        protections=("in the site's own code",),
        time=told[0].time,
        references=tuple(Reference.to(line) for line in [*told, *receipts]),
        made_from=(made_from,),
        state="passed",
    )
