"""What one attempt at a study made of a subject's data, read from the site's ledger lines about it and from what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from fedprivseg.core.kinds import find_kind
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.withdrawal import OWN_SLICES
from fedprivseg.governance.lineage.artefacts import LineageContext, concerns
from fedprivseg.governance.lineage.provenance import (
    PLAIN,
    Artefact,
    Part,
    Reference,
    level_of,
    sort_of,
    steps_of,
    texts,
)
from fedprivseg.governance.lineage.server_store import answer_artefact, model_artefact, received_artefact
from fedprivseg.governance.sitefolder.vault import PICTURES, prediction_name


@final
@dataclass(frozen=True)
class Attempt:
    """The part of a ledger between two withdrawals.

    Attributes:
        context: whose data it is.
        lines: of the ledger.
        closing: the withdrawal that ended the attempt, None for the last one.
        prefix: begins the ids of its artefacts.
    """

    context: LineageContext
    lines: Sequence[Line]
    closing: Line | None
    prefix: str

    def artefacts(self, file: Artefact) -> list[Artefact]:
        """What the attempt made of the subject's images, the oldest first."""
        coded, side = self.context.method.coded, self.context.side
        sources = [self._arrays(file)]
        found = sources[:]
        if coded and side == "train":
            found += self._networks(sources)
            sources = found[:]
        taught: list[Artefact] = []
        for group in self._crossings(measures=False):
            found += (passed := self._crossing(group, sources))
            taught += passed[1:]
            if coded and side == "test" and len(passed) > 1:
                found += (sources := self._answers(passed[-1]))
        if taught and side == "train":
            found += (models := self._models(taught))
            if models and not coded:
                found += self._networks(models)
        for group in self._crossings(measures=True):
            if group[0].facts.get("action") == "measure":
                found += (sources := [self._predictions(group[0], sources)])
            found += self._crossing(group, sources)
        return found

    def _arrays(self, file: Artefact) -> Artefact:
        """The subject's slices on the network grid."""
        described = [line for line in self.lines if line.facts.get("action") == "describe"]
        intake = [line for line in self.lines if line.event == "enrolment"]
        name = "training-slices" if self.context.side == "train" else "testing-slices"
        made = self._at_site(
            (described or intake or self.lines)[0],
            [file],
            self._held_parts([name]),
            id="array",
            sort="array",
            title="Slices on the grid",
            act="resampled; no name, no header",
            where=f"vault, {name}",
            level=level_of(intake[0]) if intake else file.level,
        )
        if self.closing is not None or not self.context.cached:
            return made
        copy = Part(name="cache of the site", here=True)
        lacking = (PLAIN,) if made.lacking else ("a copy in the site's cache is not encrypted",)
        where = f"{made.where}; the site's cache"
        return made.model_copy(update={"parts": (*made.parts, copy), "where": where, "lacking": lacking})

    def _networks(self, sources: Sequence[Artefact]) -> list[Artefact]:
        """The networks in the site's vault that the subject's slices had a part in; none if there are none."""
        skipped = ("scores-", "prediction-", "answers-")
        names = [name for name in self._held() if not name.startswith(skipped) and name not in (*OWN_SLICES, PICTURES)]
        back = sources[0].lane == "server"
        sorts = ("measures", "weights") if back else ("status", "weights")
        told = [
            line
            for line in self.lines
            if line.event == "release" and sort_of(line.facts.get("kind")) in sorts
            if line.facts.get("purpose") in ("train", "measure")
        ]
        if not names or not told:
            return []
        made = self._at_site(
            told[-1] if back else told[0],
            sources,
            self._held_parts(names),
            id="network",
            sort="model",
            title="Network in use" if back else "Encoders of the site",
            act="sent back to every site" if back else "trained on the site's slices",
            where=f"vault, {', '.join(names)}",
        )
        return [made]

    def _crossings(self, *, measures: bool) -> list[list[Line]]:
        """The lines about payloads that the subject's data is in, action by action: measures of tests, or all others."""
        groups: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines:
            wanted = (sort_of(line.facts.get("kind")) == "measures") == measures
            if wanted and line.event in ("release", "refusal") and concerns(line, self.context.pseudonym):
                groups.setdefault((line.event, str(line.facts.get("action"))), []).append(line)
        return list(groups.values())

    def _crossing(self, group: Sequence[Line], sources: Sequence[Artefact]) -> list[Artefact]:
        """What the gate released and the server received; the first alone if it was refused."""
        facts, released = group[0].facts, group[0].event == "release"
        action, kind = str(facts.get("action")), str(facts.get("kind"))
        known = find_kind(kind)
        done, protections = steps_of(texts(facts.get("history")), kind, self.context.scenario)
        clause = f" ({facts['clause']})" if facts.get("clause") else ""
        gate = Artefact(
            id=f"{self.prefix}{'gate' if released else 'refused'}.{action}",
            sort=sort_of(kind),
            lane="gate",
            title=_counted(len(group), known.noun if known else kind),
            act=f"{'released' if released else 'refused'} by rule {facts.get('rule')}{clause}",
            where=f"action {action}",
            holder=f"{self.context.site} (its policy)",
            done=done,
            protections=(*protections, *(("signed, Ed25519",) if released else ())),
            level=level_of(group[0]),
            time=group[0].time,
            parts=tuple(
                Part(name=f"{action} {line.facts.get('number')}", sha256=str(line.facts.get("digest", "")))
                for line in group
            ),
            references=tuple(Reference.to(line) for line in group),
            made_from=tuple(each.id for each in sources),
            state="passed" if released else "refused",
        )
        return [gate, self._received(group, gate)] if released else [gate]

    def _answers(self, shards: Artefact) -> list[Artefact]:
        """What the server's network made of codes of test slices: sent back, decoded at the site, not kept at the server."""
        told = [line for line in self.lines if line.event == "release" and line.facts.get("action") == "decode"]
        return [answer_artefact(f"{self.prefix}answer", told, self._receipts(told), shards.id)] if told else [shards]

    def _models(self, taught: Sequence[Artefact]) -> list[Artefact]:
        """The server's network that was made with what the subject's data is in; none if none was, or is known."""
        coded = self.context.method.coded
        if coded and not self._took_part():
            return []
        if self.closing is None:
            parts = self.context.server.models
            where = ", ".join(part.name for part in parts)
        else:
            deleted = texts(self.closing.facts.get("models"))
            parts, where = tuple(Part(name="network", sha256=sha256, here=False) for sha256 in deleted), "server"
        if not parts or not any(each.references for each in taught):
            return []  # without the server's ledger it is not known what it was made of
        state = self._state(parts)
        return [model_artefact(f"{self.prefix}model", coded=coded, where=where, parts=parts, made_from=taught, **state)]

    def _predictions(self, line: Line, sources: Sequence[Artefact]) -> Artefact:
        """The masks that were predicted for the subject."""
        context = self.context
        code = "" if context.subject is None else context.subject.code
        names = [prediction_name(context.row, phase) for phase in context.scenario.task.times]
        parts = [Part(name=f"vault/{context.held[name]}", here=True) for name in names if name in context.held]
        parts += [
            Part(name=f"predictions/{context.label}_{phase}.nii.gz", here=True)
            for phase in context.scenario.task.times
            if code and (context.folder.predictions / f"{code}_{phase}.nii.gz").exists()
        ]
        if self.closing is not None:
            parts = [Part(name="predictions", here=False)]
        return self._at_site(
            line,
            sources,
            tuple(parts),
            id="prediction",
            sort="prediction",
            title="Predicted masks",
            act="predicted and measured at the site",
            where=parts[0].name.split("/")[0] if parts else "not kept",
        )

    def _received(self, group: Sequence[Line], gate: Artefact) -> Artefact:
        """What arrived at the server: receipts in its ledger, shards in its store."""
        context, action = self.context, str(group[0].facts.get("action"))
        parts = tuple(
            context.server.part(action, int(str(line.facts.get("number"))), part.sha256)
            for line, part in zip(group, gate.parts, strict=True)
        )
        noun, where, state = "stored shard", f"codes/{context.site}/{action}", self._state(parts)
        if gate.sort == "weights":
            first = any(part.here for part in parts)
            noun, where = "update", f"aggregated into the network{'; the first is kept' if first else ''}"
            state = {"state": "kept" if first else "passed"}
        elif gate.sort == "measures":
            there = self.closing is None and context.server.folder.metrics(context.site).exists()
            parts = tuple(Part(name=part.name, sha256=part.sha256, here=there) for part in gate.parts)
            noun, where, state = "measure", f"rows {context.site}-t{context.row + 1:02d}", self._state(parts)
            if action != "measure":
                where, state = "learning curve, all test subjects together", {"state": "passed"}
        elif (kind := find_kind(group[0].facts.get("kind"))) is not None and kind.stored == "never":
            noun, where, state = "payload", "used, not kept", {"state": "passed"}
        title = _counted(len(group), noun)
        receipts = self._receipts(group)
        id = f"{self.prefix}server.{action}"
        return received_artefact(gate, id, title, where, parts=parts, receipts=receipts, **state)

    def _at_site(
        self, line: Line, sources: Sequence[Artefact], parts: tuple[Part, ...], *, id: str, **fields: Any
    ) -> Artefact:
        """An artefact at the site, of which `line` tells."""
        encrypted = any(name.endswith(".sealed") for name in self._held().values())
        return Artefact(
            id=f"{self.prefix}{id}",
            lane="site",
            holder=self.context.manager,
            protections=("encrypted at rest, AES-256-GCM",) if encrypted else (),
            lacking=() if encrypted else (PLAIN,),
            time=line.time,
            parts=parts,
            references=(Reference.to(line),),
            made_from=tuple(each.id for each in sources),
            **fields,
            **self._state(parts),
        )

    def _held(self) -> dict[str, str]:
        """What the vault holds or, of an attempt that a withdrawal ended, held: name -> file."""
        if self.closing is None:
            return self.context.held
        start = f"sites/{self.context.site}/vault/"
        paths = [Path(path) for path in texts(self.closing.facts.get("at_sites")) if path.startswith(start)]
        return {path.stem: path.name for path in paths}

    def _held_parts(self, names: Sequence[str]) -> tuple[Part, ...]:
        held = self._held()
        return tuple(Part(name=f"vault/{held[name]}", here=self.closing is None) for name in names if name in held)

    def _state(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Whether parts are still there and, if not, the line that says why."""
        if any(part.here for part in parts):
            return {"state": "kept"}
        deleted = texts(self.closing.facts.get("shards")) if self.closing is not None else ()
        shards = [part.sha256 for part in parts if part.name.startswith("codes/")]
        if shards and not any(sha256 in deleted for sha256 in shards):
            receipts = self.context.server.receipts
            came = [receipts[sha256].index for sha256 in shards if sha256 in receipts]
            return {"state": "gone", "ended": self.context.server.expired(min(came, default=0))}
        return {"state": "gone", "ended": None if self.closing is None else Reference.to(self.closing)}

    def _receipts(self, lines: Sequence[Line]) -> list[Line]:
        found = (self.context.server.receipts.get(str(line.facts.get("digest"))) for line in lines)
        return [line for line in found if line is not None]

    def _took_part(self) -> bool:
        """Whether the site was still in the study when the network was trained on shards."""
        if any(line.event == "refusal" and line.facts.get("purpose") == "train" for line in self.lines):
            return False
        return self.closing is not None or self.context.server.taught_by_shards


def _counted(count: int, noun: str) -> str:
    """``Shard`` for one, ``3 shards`` for three."""
    return noun.capitalize() if count == 1 else f"{count} {noun}s"
