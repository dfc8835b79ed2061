"""What a trace at a site is read from, and the forms that do not depend on how a study went: files, archives, ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from fedprivseg.core.config import Scenario
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.records import Subject
from fedprivseg.governance.ledger.format import SUBJECTS
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference
from fedprivseg.governance.lineage.reading import level_of, texts
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.vault import PICTURES
from fedprivseg.imaging.volumes import gridded_file


@dataclass(frozen=True)
class LineageContext:
    """What the forms are read from. own, server: verified ledgers, that of the server empty if it is not here. side, row: where
    the intake put the subject; label: what stands for it in names."""

    run: Path
    home: Path
    method: MethodCard
    scenario: Scenario
    own: Sequence[Line]
    server: Sequence[Line]
    pseudonym: str
    label: str
    subject: Subject | None
    side: Literal["train", "test", ""]
    row: int

    @property
    def site(self) -> str:
        """The site's name."""
        return self.home.name

    @property
    def manager(self) -> str:
        """Who is responsible for what lies at the site (5.3.2-a)."""
        return f"{self.site} (data manager)"

    @cached_property
    def receipts(self) -> dict[str, Line]:
        """The server's lines about what came from the site, by SHA-256."""
        return {str(line.facts.get("digest")): line for line in self.server if line.facts.get("site") == self.site}

    @cached_property
    def held(self) -> dict[str, str]:
        """What the vault holds now: name -> file."""
        files = (self.home / "vault").glob("*")
        return {path.stem: path.name for path in sorted(files) if path.suffix in (".safetensors", ".sealed")}

    @cached_property
    def cached(self) -> bool:
        """Whether the site's cache, which outlives runs, has the subject's slices."""
        station = SiteConfiguration.read(self.home / "station.json")
        files = (
            [] if self.subject is None else [self.subject.image, *([self.subject.mask] if self.subject.mask else [])]
        )
        if self.subject is None or not all(path.exists() for path in files):
            return False
        return gridded_file(self.subject, self.scenario.grid.grid(), station.cache).exists()

    @property
    def has_pictures(self) -> bool:
        """Whether the vault holds pictures for a report, and the subject may be on one."""
        return PICTURES in self.held and self.side == "test"


def concerns(line: Line, pseudonym: str) -> bool:
    """Whether a ledger line says that it is about this subject."""
    named = (line.facts.get(fact) for fact in (SUBJECTS, "train", "test"))
    return line.facts.get("subject") == pseudonym or any(pseudonym in texts(each) for each in named)


def file_form(book: LineageContext) -> Artefact:
    """The hospital's own images: there before the study, and after it."""
    intake = [line for line in book.own if line.event == "enrolment" and concerns(line, book.pseudonym)]
    one = book.subject
    paths = [] if one is None else [one.image, *([one.mask] if one.mask else [])]
    code = "" if one is None else one.code
    parts = tuple(Part(name=path.name.replace(code, book.label), here=path.exists()) for path in paths)
    basis = str(intake[-1].facts.get("basis")) if intake else ""
    bases = {"register": "consent on file (5.1.2-b)", "release": "licence of the release (5.1.1)"}
    return Artefact(
        id="file",
        sort="file",
        lane="site",
        title="Image files",
        act="taken into the study" if intake else "kept by the hospital, not taken in",
        where="the hospital's own archive",
        holder=book.manager,
        protections=(bases[basis],) if basis in bases else (),
        level=level_of(intake[-1]) if intake else None,
        time=intake[0].time if intake else "",
        parts=parts,
        references=tuple(Reference.to(line) for line in intake),
        state="kept" if any(part.here for part in parts) else "gone",
    )


def withdrawn_form(book: LineageContext, line: Line) -> Artefact:
    """The end by withdrawal: what was deleted."""
    counts = {name: len(texts(line.facts.get(name))) for name, _ in _DELETED}
    told = ", ".join(f"{counts[name]} {noun}{'s' * (counts[name] > 1)}" for name, noun in _DELETED if counts[name])
    return Artefact(
        id=f"end.{line.index}",
        sort="end",
        lane="site",
        title="Consent withdrawn",
        act=f"deleted: {told or 'nothing was left to delete'}",
        where="site and server",
        holder=book.manager,
        protections=(f"clause {line.facts.get('clause')}",),
        time=line.time,
        references=(Reference.to(line),),
        state="end",
    )


_DELETED = (("at_sites", "site file"), ("shards", "shard"), ("models", "model"))


def put_away_form(book: LineageContext, line: Line) -> Artefact:
    """An archive that the subject's data was put into, or its destruction."""
    facts, gone = line.facts, line.event == "destruction"
    said = [f"class {facts['class']}"] if "class" in facts else []
    return Artefact(
        id=f"{line.event}.{line.index}",
        sort="end" if gone else "archive",
        lane="site",
        title="Destroyed" if gone else "Archived",
        act=f"destroyed by {facts.get('method')}" if gone else f"archived until {facts.get('keep_until')}",
        where="every copy that the order names" if gone else f"archive {facts.get('archive')}",
        holder=book.manager,
        protections=(*said, f"clause {facts.get('clause')}", *(() if gone else ("sealed, AES-256-GCM",))),
        level=level_of(line),
        time=line.time,
        parts=() if gone else (Part(name=str(facts.get("archive")), sha256=str(facts.get("digest", ""))),),
        references=(Reference.to(line),),
        made_from=("file",),
        state="end" if gone else "kept",
    )
