"""A trace from the server's side: the life of one shard, whose pseudonym is its SHA-256.

It reads the server's own folder and nothing of any site's, so that it holds no subject's code and no pseudonym that a site
made: whose data a shard is of only its site can tell, from its own ledger (`trace.site`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.results import read_run_id, read_scenario
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference, Sort, Trace
from fedprivseg.governance.lineage.reading import (
    PLAIN,
    RESEARCHER,
    answer_form,
    is_stored,
    lapsed,
    model_parts,
    shard_path,
    stated_key,
    steps_of,
    taught_by_shards,
    verified,
)
from fedprivseg.governance.sitefolder.audit import read_identities

FEWEST = 8
"""Digits of a SHA-256 that name a shard, at least."""


@dataclass(frozen=True)
class _Shard:
    """What came, as the server's ledger tells. line: the receipt. kind: as its method says of the action; stored: its file."""

    run: Path
    scenario: Scenario
    lines: Sequence[Line]
    line: Line

    @property
    def site(self) -> str:
        """Who sent it."""
        return str(self.line.facts.get("site"))

    @property
    def action(self) -> str:
        """In answer to which order."""
        return str(self.line.facts.get("action"))

    @property
    def number(self) -> int:
        """Which shard or round."""
        return int(str(self.line.facts.get("number")))

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return str(self.line.facts.get("digest"))

    @property
    def path(self) -> Path:
        """Where the store has it, or had it."""
        return shard_path(self.run, self.site, self.action, self.number)


def trace_shard(run: Path, name: str) -> Trace:
    """The life of the shard `name` at the server of the run's folder: its SHA-256, the first eight digits of it or more, or
    ``SITE/ACTION/NUMBER``.

    Raises FolderError if there is no server's ledger, RequestError if nothing of that name came, LedgerError if the ledger
    does not verify.
    """
    scenario = read_scenario(run)
    lines = verified(run / "server" / "ledger.jsonl")
    if not lines:
        raise FolderError(f"{run} has no ledger of a server; at a site, trace a subject without --server")
    shard = _Shard(run, scenario, lines, _receipt(lines, name))
    method = MethodCard.read(run)
    forms = [*_arrival(shard)]
    keys = read_identities(run)
    return Trace(
        run=read_run_id(run),
        side="server",
        site=shard.site,
        method=method.title,
        subject=shard.sha256,
        label=f"{shard.site}/{shard.action}/{shard.number}",
        role="whose data it is of, its site alone can tell",
        forms=(*forms, *_uses(shard, forms[-1], coded=method.coded)),
        keys={"server": stated_key(lines), **({shard.site: keys[shard.site]} if shard.site in keys else {})},
    )


def _receipt(lines: Sequence[Line], name: str) -> Line:
    came = [line for line in lines if line.event == "receipt" and "digest" in line.facts]
    wanted = name.lower()
    if "/" in name:
        found = [
            line
            for line in came
            if name == f"{line.facts.get('site')}/{line.facts.get('action')}/{line.facts.get('number')}"
        ][-1:]
    else:
        found = [line for line in came if len(wanted) >= FEWEST and str(line.facts["digest"]).startswith(wanted)]
    if len({line.facts["digest"] for line in found}) > 1:
        raise RequestError(f"{len(found)} payloads begin with {name!r}; give more digits of the SHA-256")
    if not found:
        raise RequestError(
            f"nothing named {name[:80]!r} came to this server. Give the SHA-256 of a payload (at least {FEWEST} digits of it) "
            "or SITE/ACTION/NUMBER; `fedprivseg ledger query RUN --site server --event receipt` lists what came. A patient can "
            "be traced at the patient's site alone."
        )
    return found[-1]


def _arrival(shard: _Shard) -> Iterator[Artefact]:
    """What the site's gate let out, as far as the server saw it, and what the server has of it."""
    line = shard.line
    here = is_stored(shard.path, shard.sha256)
    header = _header(shard.path) if here else {}
    kind = find_kind(header.get("kind"))
    sort = _sort(shard) if kind is None else kind.lineage
    level = header.get("level")
    done, protections = steps_of(header.get("history", ()), str(header.get("kind", "")), shard.scenario)
    head = line.facts.get("checkpoint")
    seen = f"{shard.site}'s ledger then had {head[0]} lines" if isinstance(head, list) else ""
    yield Artefact(
        id="gate",
        sort=sort,
        lane="gate",
        title="Released payload",
        act="let out by the site's gate",
        where=f"action {shard.action}",
        holder=f"{shard.site} (its policy)",
        done=done,
        protections=(*protections, "signed, Ed25519", *([seen] if seen else [])),
        level=level,
        time=line.time,
        parts=(Part(name=f"{shard.action} {shard.number}", sha256=shard.sha256),),
        references=(Reference.to(line),),
        state="passed",
    )
    part = Part(name=f"codes/{shard.site}/{shard.action}/{shard.number:05d}", sha256=shard.sha256, here=here)
    stored = here or sort in ("code", "raw")
    yield Artefact(
        id="server",
        sort=sort,
        lane="server",
        title="Update" if sort == "weights" else "Stored shard" if stored else "Payload",
        act="received and checked",
        where=f"codes/{shard.site}/{shard.action}" if stored else "used, not kept",
        holder=RESEARCHER,
        protections=("signature verified",),
        lacking=(PLAIN,) if here else (),
        level=level,
        time=line.time,
        parts=(part,),
        references=(Reference.to(line),),
        made_from=("gate",),
        state="kept" if here else "gone" if stored else "passed",
        ended=lapsed(shard.lines, shard.site, line.index) if stored and not here else None,
    )


def _uses(shard: _Shard, came: Artefact, *, coded: bool) -> Iterator[Artefact]:
    """What the server made of it: the network, if it was taught by it, or answers to codes of test slices."""
    streams = MethodCard.read(shard.run).sends
    sides = [sent.side for sent in streams if sent.action == shard.action]
    if (sides == ["train"] and taught_by_shards(shard.run, shard.site)) or came.sort == "weights":
        parts = model_parts(shard.run)
        if parts and came.ended is None:
            yield Artefact(
                id="model",
                sort="model",
                lane="server",
                title="Segmentation network" if coded else "Averaged network" if came.sort == "weights" else "Network",
                act="averaged over sites" if came.sort == "weights" else "trained on the shards of all sites",
                where=", ".join(part.name for part in parts),
                holder=RESEARCHER,
                lacking=(PLAIN,),
                time=came.time,
                parts=parts,
                references=came.references,
                made_from=(came.id,),
            )
    if sides == ["test"]:
        told = [
            line
            for line in shard.lines
            if line.facts.get("site") == shard.site and line.facts.get("action") == "decode"
            if line.index > shard.line.index
        ]
        if told:
            yield answer_form("answer", told, (), came.id)


def _sort(shard: _Shard) -> Sort:
    """What a payload of this action is that is not stored (any more), by what the method says of the action."""
    method = MethodCard.read(shard.run)
    if any(sent.action == shard.action for sent in method.sends):
        return "code" if method.coded else "raw"
    if shard.action in ("measure", "glance", "measure_foreign"):
        return "measures"
    return "weights" if shard.action in ("train", "masked_update") else "status"


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as file:
        header: dict[str, Any] = json.loads((file.metadata() or {})["payload"])
    return header
