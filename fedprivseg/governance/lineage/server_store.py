"""What a server has of one site, as both sides trace it: receipts in its ledger, shards in its store, and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

from fedprivseg.core.arrays import facts_of
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import digest
from fedprivseg.core.runfolder import ServerFolder
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lineage.provenance import PLAIN, Artefact, Part, Reference, State
from fedprivseg.governance.policy.policy_context import CONSENT_ENDED

RESEARCHER = "server (researcher)"
"""Who is responsible for what lies at the server (5.3.2-a)."""


def verified(path: Path, public_hex: str | None = None) -> list[Line]:
    """The lines of the ledger at `path`, none if there is no such file. Raises LedgerError if they do not verify."""
    if not path.exists():
        return []
    ledger.verify(path, public_hex=public_hex)
    return ledger.read(path)


def stated_key(lines: Sequence[Line]) -> dict[str, str]:
    """The server's public key (hex), which its ledger states in its first line; nothing without lines."""
    return {"server": str(lines[0].facts.get("public_key", ""))} if lines else {}


@final
@dataclass(frozen=True)
class ServerStore:
    """What a server has of one site.

    Attributes:
        folder: the server's.
        lines: of its ledger, which verifies; none if it is not here.
        site: the site's name.
    """

    folder: ServerFolder
    lines: Sequence[Line]
    site: str

    @cached_property
    def receipts(self) -> dict[str, Line]:
        """The lines about what came from the site, by SHA-256."""
        return {str(line.facts.get("digest")): line for line in self.lines if line.facts.get("site") == self.site}

    def path(self, action: str, number: int) -> Path:
        """Where a shard of the site lies, or would."""
        return self.folder.codes / self.site / action / f"{number:05d}.safetensors"

    def part(self, action: str, number: int, sha256: str) -> Part:
        """A shard of the site."""
        path = self.path(action, number)
        here = path.exists() and digest(path.read_bytes()) == sha256
        return Part(name=f"codes/{self.site}/{action}/{number:05d}", sha256=sha256, here=here)

    def expired(self, after: int) -> Reference | None:
        """The first line behind line `after` by which consent at the site had expired or was revoked: the server then deleted
        what the site had sent."""
        for line in self.lines:
            if line.index > after and line.facts.get("site") == self.site and line.facts.get("rule") == CONSENT_ENDED:
                return Reference.to(line)
        return None

    @property
    def taught_by_shards(self) -> bool:
        """Whether the network that was trained on shards was trained on those of the site; True if there is none to ask."""
        facts = [facts_of(path) for path in ModelStore(self.folder.path).paths()]
        named = [each["sites"].split() for each in facts if "sites" in each]
        return not named or any(self.site in sites for sites in named)

    @property
    def models(self) -> tuple[Part, ...]:
        """The models that lie at the server now."""
        paths = ModelStore(self.folder.path).paths()
        return tuple(Part(name=path.name, sha256=digest(path.read_bytes()), here=True) for path in paths)


def received_artefact(
    gate: Artefact,
    id: str,
    title: str,
    where: str,
    *,
    parts: tuple[Part, ...],
    receipts: Sequence[Line],
    state: State,
    ended: Reference | None = None,
) -> Artefact:
    """What arrived at the server of what a gate released.

    Args:
        gate: what the gate released.
        id: of the artefact.
        title: for people.
        where: in words.
        parts: shards or payloads.
        receipts: the lines of those who got it.
        state: what became of it.
        ended: the line that tells why it is gone.
    """
    return Artefact(
        id=id,
        sort=gate.sort,
        lane="server",
        title=title,
        act="received and checked",
        where=where,
        holder=RESEARCHER,
        protections=("signature verified",),
        lacking=(PLAIN,) if state == "kept" else (),
        level=gate.level,
        time=receipts[0].time if receipts else gate.time,
        parts=parts,
        references=tuple(Reference.to(line) for line in receipts),
        made_from=(gate.id,),
        state=state,
        ended=ended,
    )


def answer_artefact(id: str, told: Sequence[Line], receipts: Sequence[Line], made_from: str) -> Artefact:
    """The server's answers to a site, in the site's own code.

    Args:
        id: of the artefact.
        told: the lines of those who answered.
        receipts: the lines of those who got the answers.
        made_from: the id of the artefact that was answered.
    """
    return Artefact(
        id=id,
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


def model_artefact(
    id: str,
    *,
    coded: bool,
    where: str,
    parts: tuple[Part, ...],
    made_from: Sequence[Artefact],
    state: State = "kept",
    ended: Reference | None = None,
) -> Artefact:
    """The server's network that was made with what a site sent.

    Args:
        id: of the artefact.
        coded: whether the server alone has a network; otherwise it is an average over sites.
        where: in words.
        parts: the networks.
        made_from: what the site sent; the last of their lines tells of the network.
        state: what became of it.
        ended: the line that tells why it is gone.
    """
    last = max((reference for each in made_from for reference in each.references), key=lambda each: each.time)
    return Artefact(
        id=id,
        sort="model",
        lane="server",
        title="Segmentation network" if coded else "Averaged network",
        act="trained on the shards" if coded else "averaged over sites",
        where=where,
        holder=RESEARCHER,
        lacking=(PLAIN,),
        time=last.time,
        parts=parts,
        references=(last,),
        made_from=tuple(each.id for each in made_from),
        state=state,
        ended=ended,
    )
