"""What a trace at a site is read from, and the artefacts that do not depend on how a study went: files, archives, ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, final

from fedprivseg.core.config import Scenario
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.records import Subject
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.governance.ledger.format import SUBJECTS
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.inventory import vault_files
from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference, level_of, texts
from fedprivseg.governance.lineage.server_store import ServerStore
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.vault import PICTURES
from fedprivseg.imaging.volumes import gridded_file


@final
@dataclass(frozen=True)
class LineageContext:
    """What the artefacts of one subject are read from.

    Attributes:
        folder: the site's.
        method: of the run.
        scenario: of the run.
        lines: of the site's ledger, which verifies.
        server: what the server has of the site.
        pseudonym: the subject's.
        label: what stands for it in names.
        subject: None where its code is not known.
        side: where the enrolment put the subject, empty if it is not enrolled.
        row: at which place.
    """

    folder: SiteFolder
    method: MethodCard
    scenario: Scenario
    lines: Sequence[Line]
    server: ServerStore
    pseudonym: str
    label: str
    subject: Subject | None
    side: Literal["train", "test", ""]
    row: int

    @property
    def site(self) -> str:
        """The site's name."""
        return self.folder.name

    @property
    def manager(self) -> str:
        """Who is responsible for what lies at the site (5.3.2-a)."""
        return f"{self.site} (data manager)"

    @cached_property
    def held(self) -> dict[str, str]:
        """What the vault holds now: name -> file."""
        return {path.stem: path.name for path in vault_files(self.folder)}

    @cached_property
    def cached(self) -> bool:
        """Whether the site's cache, which outlives runs, has the subject's slices."""
        if self.subject is None or not all(path.exists() for path in _images(self.subject)):
            return False
        cache = SiteConfiguration.read(self.folder.configuration).cache
        return gridded_file(self.subject, self.scenario.grid.grid(), cache).exists()

    @property
    def has_images(self) -> bool:
        """Whether the vault holds images for a report, and the subject may be on one."""
        return PICTURES in self.held and self.side == "test"


def concerns(line: Line, pseudonym: str) -> bool:
    """Whether a ledger line says that it is about this subject."""
    named = (line.facts.get(fact) for fact in (SUBJECTS, "train", "test"))
    return line.facts.get("subject") == pseudonym or any(pseudonym in texts(each) for each in named)


def file_artefact(context: LineageContext) -> Artefact:
    """The hospital's own images: there before the study, and after it."""
    intake = [line for line in context.lines if line.event == "enrolment" and concerns(line, context.pseudonym)]
    one = context.subject
    paths = [] if one is None else _images(one)
    code = "" if one is None else one.code
    parts = tuple(Part(name=path.name.replace(code, context.label), here=path.exists()) for path in paths)
    basis = str(intake[-1].facts.get("basis")) if intake else ""
    bases = {"register": "consent on file (5.1.2-b)", "release": "licence of the release (5.1.1)"}
    return Artefact(
        id="file",
        sort="file",
        lane="site",
        title="Image files",
        act="enrolled in the study" if intake else "kept by the hospital, not enrolled",
        where="the hospital's own archive",
        holder=context.manager,
        protections=(bases[basis],) if basis in bases else (),
        level=level_of(intake[-1]) if intake else None,
        time=intake[0].time if intake else "",
        parts=parts,
        references=tuple(Reference.to(line) for line in intake),
        state="kept" if any(part.here for part in parts) else "gone",
    )


def withdrawal_artefact(context: LineageContext, line: Line) -> Artefact:
    """The end by withdrawal: what was deleted."""
    counts = [(len(texts(line.facts.get(name))), noun) for name, noun in _DELETED]
    deleted = ", ".join(f"{count} {noun}{'s' * (count > 1)}" for count, noun in counts if count)
    return Artefact(
        id=f"end.{line.index}",
        sort="end",
        lane="site",
        title="Consent withdrawn",
        act=f"deleted: {deleted or 'nothing was left to delete'}",
        where="site and server",
        holder=context.manager,
        protections=(f"clause {line.facts.get('clause')}",),
        time=line.time,
        references=(Reference.to(line),),
        state="end",
    )


_DELETED = (("at_sites", "site file"), ("shards", "shard"), ("models", "model"))


def archive_artefact(context: LineageContext, line: Line) -> Artefact:
    """An archive that holds the subject's data, or a destruction of it."""
    facts, gone = line.facts, line.event == "destruction"
    said = [f"class {facts['class']}"] if "class" in facts else []
    return Artefact(
        id=f"{line.event}.{line.index}",
        sort="end" if gone else "archive",
        lane="site",
        title="Destroyed" if gone else "Archived",
        act=f"destroyed by {facts.get('method')}" if gone else f"archived until {facts.get('keep_until')}",
        where="every copy that the order names" if gone else f"archive {facts.get('archive')}",
        holder=context.manager,
        protections=(*said, f"clause {facts.get('clause')}", *(() if gone else ("encrypted at rest, AES-256-GCM",))),
        level=level_of(line),
        time=line.time,
        parts=() if gone else (Part(name=str(facts.get("archive")), sha256=str(facts.get("digest", ""))),),
        references=(Reference.to(line),),
        made_from=("file",),
        state="end" if gone else "kept",
    )


def _images(subject: Subject) -> list[Path]:
    return [subject.image, *([subject.mask] if subject.mask else [])]
