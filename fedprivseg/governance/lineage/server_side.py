"""A trace from the server's side: the life of one shard, whose pseudonym is its SHA-256.

It reads the server's own folder and nothing of any site's, so that it holds no subject's code and no pseudonym that a site
made: whose data a shard is of only its site can tell, from its own ledger (`site_side`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from safetensors import safe_open

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.results import read_run_id, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference, Sort, Trace, steps_of
from fedprivseg.governance.lineage.server_store import (
    ServerStore,
    answer_artefact,
    model_artefact,
    received_artefact,
    stated_key,
    verified,
)
from fedprivseg.governance.sitefolder.audit import read_identities

FEWEST = 8
"""Digits of a SHA-256 that name a shard, at least."""


@final
@dataclass(frozen=True)
class _Shard:
    """What came, as the server's ledger tells: `line` is the receipt."""

    server: ServerStore
    scenario: Scenario
    method: MethodCard
    line: Line
    action: str
    number: int
    sha256: str


def trace_shard(run: Path, name: str) -> Trace:
    """The life of a shard at the server of the run's folder.

    Args:
        run: the run's folder.
        name: its SHA-256, the first eight digits of it or more, or ``SITE/ACTION/NUMBER``.

    Raises:
        FolderError: there is no server's ledger.
        RequestError: nothing of that name came.
        LedgerError: the ledger does not verify.
    """
    scenario, folder = read_scenario(run), RunFolder(run).server
    lines = verified(folder.ledger)
    if not lines:
        raise FolderError(f"{run} has no ledger of a server; at a site, trace a subject without --server")
    line = _receipt(lines, name)
    site, method, keys = str(line.facts.get("site")), MethodCard.read(run), read_identities(run)
    shard = _Shard(
        server=ServerStore(folder, lines, site),
        scenario=scenario,
        method=method,
        line=line,
        action=str(line.facts.get("action")),
        number=int(str(line.facts.get("number"))),
        sha256=str(line.facts.get("digest")),
    )
    arrived = [*_arrival(shard)]
    return Trace(
        run=read_run_id(run),
        side="server",
        site=site,
        method=method.title,
        subject=shard.sha256,
        label=f"{site}/{shard.action}/{shard.number}",
        role="whose data it is of, its site alone can tell",
        artefacts=(*arrived, *_uses(shard, arrived[-1])),
        keys={**stated_key(lines), **({site: keys[site]} if site in keys else {})},
    )


def _receipt(lines: Sequence[Line], name: str) -> Line:
    came = [line for line in lines if line.event == "receipt" and "digest" in line.facts]
    if "/" in name:
        found = [line for line in came if name == "/".join(str(line.facts.get(each)) for each in _PLACE)][-1:]
    else:
        wanted = name.lower()
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


_PLACE = ("site", "action", "number")


def _arrival(shard: _Shard) -> Iterator[Artefact]:
    """What the site's gate released, as far as the server saw it, and what the server has of it."""
    line, server, action = shard.line, shard.server, shard.action
    part = server.part(action, shard.number, shard.sha256)
    header = _header(server.path(action, shard.number)) if part.here else {}
    kind = find_kind(header.get("kind"))
    sort = _sort(shard) if kind is None else kind.lineage
    done, protections = steps_of(header.get("history", ()), str(header.get("kind", "")), shard.scenario)
    head = line.facts.get("checkpoint")
    seen = [f"{server.site}'s ledger then had {head[0]} lines"] if isinstance(head, list) else []
    gate = Artefact(
        id="gate",
        sort=sort,
        lane="gate",
        title="Released payload",
        act="released by the site's gate",
        where=f"action {action}",
        holder=f"{server.site} (its policy)",
        done=done,
        protections=(*protections, "signed, Ed25519", *seen),
        level=header.get("level"),
        time=line.time,
        parts=(Part(name=f"{action} {shard.number}", sha256=shard.sha256),),
        references=(Reference.to(line),),
        state="passed",
    )
    yield gate
    stored = bool(part.here) or sort in ("code", "raw")
    yield received_artefact(
        gate,
        "server",
        "Update" if sort == "weights" else "Stored shard" if stored else "Payload",
        f"codes/{server.site}/{action}" if stored else "used, not kept",
        parts=(part,),
        receipts=[line],
        state="kept" if part.here else "gone" if stored else "passed",
        ended=server.expired(line.index) if stored and not part.here else None,
    )


def _uses(shard: _Shard, came: Artefact) -> Iterator[Artefact]:
    """What the server made of it: the network, if it was taught by it, or answers to codes of test slices."""
    server = shard.server
    sides = [sent.side for sent in shard.method.sends if sent.action == shard.action]
    averaged = came.sort == "weights"
    parts = server.models if averaged or (sides == ["train"] and server.taught_by_shards) else ()
    if parts and came.ended is None:
        where = ", ".join(part.name for part in parts)
        yield model_artefact("model", coded=not averaged, where=where, parts=parts, made_from=[came])
    told = [
        line
        for line in server.lines
        if line.facts.get("site") == server.site and line.facts.get("action") == "decode"
        if line.index > shard.line.index
    ]
    if sides == ["test"] and told:
        yield answer_artefact("answer", told, (), came.id)


def _sort(shard: _Shard) -> Sort:
    """What a payload of this action is that is not stored (any more), by what the method says of the action."""
    if any(sent.action == shard.action for sent in shard.method.sends):
        return "code" if shard.method.coded else "raw"
    if shard.action in ("measure", "validate", "measure_foreign"):
        return "measures"
    return "weights" if shard.action in ("train", "masked_update") else "status"


def _header(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as file:
        header: dict[str, Any] = json.loads((file.metadata() or {})["payload"])
    return header
