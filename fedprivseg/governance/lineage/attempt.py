"""What one attempt at a study made of a subject's data, read from the site's ledger lines about it and from what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedprivseg.core.kinds import find_kind
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.withdrawal import OWN_SLICES
from fedprivseg.governance.lineage.artefacts import LineageContext, concerns
from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference, Sort
from fedprivseg.governance.lineage.reading import (
    PLAIN,
    RESEARCHER,
    answer_form,
    counted,
    is_stored,
    lapsed,
    level_of,
    model_parts,
    shard_path,
    sort_of,
    steps_of,
    taught_by_shards,
    texts,
)
from fedprivseg.governance.sitefolder.vault import PICTURES


@dataclass(frozen=True)
class _Attempt:
    """The lines between two withdrawals, and the one that closes them."""

    book: LineageContext
    lines: Sequence[Line]
    closing: Line | None
    prefix: str

    def arrays(self, file: Artefact) -> Artefact:
        """The subject's slices on the network grid."""
        book = self.book
        told = [line for line in self.lines if line.facts.get("action") == "describe"]
        intake = [line for line in self.lines if line.event == "enrolment"]
        first = (told or intake or self.lines)[0]
        name = "training-slices" if book.side == "train" else "testing-slices"
        form = self._at_site(
            [name],
            id="array",
            sort="array",
            title="Slices on the grid",
            act="resampled; no name, no header",
            where=f"vault, {name}",
            level=level_of(intake[0]) if intake else file.level,
            line=first,
            sources=[file],
        )
        if self.closing is None and book.cached:
            copy = Part(name="cache of the site", here=True)
            plain = (PLAIN,) if form.lacking else ("a copy in the site's cache is not encrypted",)
            where = f"vault, {name}; the site's cache"
            return form.model_copy(update={"parts": (*form.parts, copy), "where": where, "lacking": plain})
        return form

    def networks(self, sources: Sequence[Artefact]) -> list[Artefact]:
        """The networks in the site's vault that the subject's slices had a part in; none if there are none."""
        skipped = ("scores-", "prediction-")
        names = [name for name in self._held() if not name.startswith(skipped) and name not in (*OWN_SLICES, PICTURES)]
        back = sources[0].lane == "server"
        sorts = ("measures", "weights") if back else ("status", "weights")
        told = [
            line
            for line in self.lines
            if line.event == "release" and sort_of(line) in sorts and line.facts.get("purpose") in ("train", "measure")
        ]
        if not names or not told:
            return []
        form = self._at_site(
            names,
            id="network",
            sort="model",
            title="Network in use" if back else "Encoders of the site",
            act="sent back to every site" if back else "trained on the site's slices",
            where=f"vault, {', '.join(names)}",
            level=None,
            line=told[-1] if back else told[0],
            sources=sources,
        )
        return [form]

    def crossings(self, *, measures: bool) -> list[list[Line]]:
        """The lines about payloads that the subject's data is in, action by action: measures of tests, or all others."""
        groups: dict[tuple[str, str], list[Line]] = {}
        for line in self.lines:
            sort = line.event, str(line.facts.get("action"))
            wanted = (sort_of(line) == "measures") == measures
            if wanted and line.event in ("release", "refusal") and concerns(line, self.book.pseudonym):
                groups.setdefault(sort, []).append(line)
        return list(groups.values())

    def crossing(self, group: Sequence[Line], sources: Sequence[Artefact]) -> list[Artefact]:
        """What the gate let out and the server received; the first alone if it was refused."""
        facts, released = group[0].facts, group[0].event == "release"
        action, kind = str(facts.get("action")), str(facts.get("kind"))
        known = find_kind(kind)
        done, protections = steps_of(texts(facts.get("history")), kind, self.book.scenario)
        clause = f" ({facts['clause']})" if facts.get("clause") else ""
        gate = Artefact(
            id=f"{self.prefix}{'gate' if released else 'refused'}.{action}",
            sort=sort_of(group[0]),
            lane="gate",
            title=counted(len(group), known.noun if known else kind),
            act=f"{'let out' if released else 'refused'} by rule {facts.get('rule')}{clause}",
            where=f"action {action}",
            holder=f"{self.book.site} (its policy)",
            done=done,
            protections=(*protections, *(("signed, Ed25519",) if released else ())),
            level=level_of(group[0]),
            time=group[0].time,
            parts=tuple(
                Part(name=f"{action} {line.facts.get('number')}", sha256=str(line.facts.get("digest", "")))
                for line in group
            ),
            references=tuple(Reference.to(line) for line in group),
            made_from=tuple(form.id for form in sources),
            state="passed" if released else "refused",
        )
        return [gate, self._received(group, gate)] if released else [gate]

    def answers(self, shards: Artefact) -> list[Artefact]:
        """What the server's network made of codes of test slices: sent back, decoded at the site, not kept at the server."""
        told = [line for line in self.lines if line.event == "release" and line.facts.get("action") == "decode"]
        receipts = [line for line in map(self._receipt, told) if line is not None]
        if not told:
            return [shards]
        return [answer_form(f"{self.prefix}answer", told, receipts, shards.id)]

    def models(self, taught: Sequence[Artefact]) -> list[Artefact]:
        """The server's network that was made with what the subject's data is in; none if none was, or is known."""
        if self.book.method.coded and not self._took_part():
            return []
        if self.closing is None:
            parts = model_parts(self.book.run)
        else:
            shas = texts(self.closing.facts.get("models"))
            parts = tuple(Part(name="network", sha256=sha256, here=False) for sha256 in shas)
        told = [reference for form in taught for reference in form.references]
        if not parts or not told:  # without the server's ledger it is not known what it was made of
            return []
        last = max(told, key=lambda each: each.time)
        form = Artefact(
            id=f"{self.prefix}model",
            sort="model",
            lane="server",
            title="Segmentation network" if self.book.method.coded else "Averaged network",
            act="trained on the shards" if self.book.method.coded else "averaged over sites",
            where=", ".join(part.name for part in parts) if self.closing is None else "server",
            holder=RESEARCHER,
            lacking=(PLAIN,),
            time=last.time,
            parts=parts,
            references=(last,),
            made_from=tuple(form.id for form in taught),
            **self._state(parts),
        )
        return [form]

    def predictions(self, line: Line, sources: Sequence[Artefact]) -> list[Artefact]:
        """The masks that were predicted for the subject."""
        book = self.book
        sealed = [f"prediction-{book.row:05d}-{phase.lower()}" for phase in book.scenario.task.times]
        code = "" if book.subject is None else book.subject.code
        parts = [Part(name=f"vault/{book.held[name]}", here=True) for name in sealed if name in book.held]
        for phase in book.scenario.task.times:
            path = book.home / "predictions" / f"{code}_{phase}.nii.gz"
            if code and path.exists():
                parts.append(Part(name=f"predictions/{book.label}_{phase}.nii.gz", here=True))
        if self.closing is not None:
            parts = [Part(name="predictions", here=False)]
        form = self._at_site(
            [],
            id="prediction",
            sort="prediction",
            title="Predicted masks",
            act="predicted and measured at the site",
            where=parts[0].name.split("/")[0] if parts else "not kept",
            level=None,
            line=line,
            sources=sources,
        )
        state = self._state(parts) if parts else {"state": "gone"}
        return [form.model_copy(update={"parts": tuple(parts), **state})]

    def _received(self, group: Sequence[Line], gate: Artefact) -> Artefact:
        """What arrived at the server: receipts in its ledger, shards in its store."""
        book, action = self.book, str(group[0].facts.get("action"))
        receipts = [line for line in map(self._receipt, group) if line is not None]
        numbers = [int(str(line.facts.get("number"))) for line in group]
        parts = tuple(
            Part(
                name=f"codes/{book.site}/{action}/{number:05d}",
                sha256=part.sha256,
                here=is_stored(shard_path(book.run, book.site, action, number), part.sha256),
            )
            for number, part in zip(numbers, gate.parts, strict=True)
        )
        title, where, state = "stored shard", f"codes/{book.site}/{action}", self._state(parts)
        if gate.sort == "weights":
            first = any(part.here for part in parts)
            title, where = "update", f"folded into the network{'; the first is kept' if first else ''}"
            state = {"state": "kept" if first else "passed"}
        elif gate.sort == "measures":
            there = self.closing is None and (book.run / "server" / "metrics" / f"{book.site}.safetensors").exists()
            parts = tuple(Part(name=part.name, sha256=part.sha256, here=there) for part in gate.parts)
            title, where = "measure", f"rows {book.site}-t{book.row + 1:02d}"
            state = self._state(parts)
            if action != "measure":
                where, state = "learning curve, all test subjects together", {"state": "passed"}
        elif (kind := find_kind(group[0].facts.get("kind"))) is not None and kind.stored == "never":
            title, where, state = "payload", "used, not kept", {"state": "passed"}
        return Artefact(
            id=f"{self.prefix}server.{action}",
            sort=gate.sort,
            lane="server",
            title=counted(len(group), title),
            act="received and checked",
            where=where,
            holder=RESEARCHER,
            protections=("signature verified",),
            lacking=(PLAIN,) if state["state"] == "kept" else (),
            level=gate.level,
            time=receipts[0].time if receipts else gate.time,
            parts=parts,
            references=tuple(Reference.to(line) for line in receipts),
            made_from=(gate.id,),
            **state,
        )

    def _at_site(
        self,
        names: Sequence[str],
        *,
        id: str,
        sort: Sort,
        title: str,
        act: str,
        where: str,
        level: int | None,
        line: Line,
        sources: Sequence[Artefact],
    ) -> Artefact:
        """A form in the site's vault, of these names."""
        held = self._held()
        parts = tuple(Part(name=f"vault/{held[name]}", here=self.closing is None) for name in names if name in held)
        sealed = any(name.endswith(".sealed") for name in held.values())
        return Artefact(
            id=f"{self.prefix}{id}",
            sort=sort,
            lane="site",
            title=title,
            act=act,
            where=where,
            holder=self.book.manager,
            protections=("sealed, AES-256-GCM",) if sealed else (),
            lacking=() if sealed else (PLAIN,),
            level=level,
            time=line.time,
            parts=parts,
            references=(Reference.to(line),),
            made_from=tuple(form.id for form in sources),
            **self._state(parts),
        )

    def _held(self) -> dict[str, str]:
        """What the vault holds or, of an attempt that a withdrawal ended, held: name -> file."""
        if self.closing is None:
            return self.book.held
        start = f"sites/{self.book.site}/vault/"
        paths = [path for path in texts(self.closing.facts.get("at_sites")) if path.startswith(start)]
        return {Path(path).stem: Path(path).name for path in paths}

    def _state(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Whether parts are still there and, if not, the line that says why."""
        if any(part.here for part in parts):
            return {"state": "kept"}
        deleted = texts(self.closing.facts.get("shards")) if self.closing is not None else ()
        shards = [part.sha256 for part in parts if part.name.startswith("codes/")]
        if shards and not any(sha256 in deleted for sha256 in shards):
            came = [self.book.receipts[sha256].index for sha256 in shards if sha256 in self.book.receipts]
            return {"state": "gone", "ended": lapsed(self.book.server, self.book.site, min(came, default=0))}
        return {"state": "gone", "ended": None if self.closing is None else Reference.to(self.closing)}

    def _receipt(self, line: Line) -> Line | None:
        return self.book.receipts.get(str(line.facts.get("digest")))

    def _took_part(self) -> bool:
        """Whether the site was still in the study when the network was trained on shards."""
        if any(line.event == "refusal" and line.facts.get("purpose") == "train" for line in self.lines):
            return False
        return self.closing is not None or taught_by_shards(self.book.run, self.book.site)


def attempt_forms(
    book: LineageContext, lines: Sequence[Line], closing: Line | None, file: Artefact, prefix: str
) -> list[Artefact]:
    """What one attempt at the study made of the subject. closing: the withdrawal that ended it, None for the last attempt."""
    attempt = _Attempt(book, lines, closing, prefix)
    forms = [arrays := attempt.arrays(file)]
    sources = [arrays]
    coded = book.method.coded
    if coded and book.side == "train":
        forms += attempt.networks(sources)
        sources = forms[:]
    taught: list[Artefact] = []
    for group in attempt.crossings(measures=False):
        forms += (passed := attempt.crossing(group, sources))
        taught += passed[1:]
        if coded and book.side == "test" and len(passed) > 1:
            forms += (sources := attempt.answers(passed[-1]))
    if taught and book.side == "train":
        forms += (models := attempt.models(taught))
        if models and not coded:
            forms += attempt.networks(models)
    for group in attempt.crossings(measures=True):
        if group[0].facts.get("action") == "measure":
            forms += (sources := attempt.predictions(group[0], sources))
        forms += attempt.crossing(group, sources)
    return forms
