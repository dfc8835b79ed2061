"""A trace at the site: who a pseudonym is, and what the site's ledger and disk tell of this subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from fedprivseg.core.errors import DataError, FolderError, RequestError
from fedprivseg.core.kinds import find_kind
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.records import Subject
from fedprivseg.core.results import check_files, read_run_id, read_scenario
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.format import SUBJECTS
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lineage.artefacts import (
    LineageContext,
    archive_artefact,
    concerns,
    file_artefact,
    withdrawal_artefact,
)
from fedprivseg.governance.lineage.attempt import Attempt
from fedprivseg.governance.lineage.provenance import Artefact, Trace
from fedprivseg.governance.lineage.server_store import ServerStore, stated_key, verified
from fedprivseg.governance.policy.consent import Register
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS, Notes
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.splits import COHORT, own_subjects


def trace_subject(run: Path, name: str, *, site: str = "", with_code: bool = False) -> Trace:
    """The life of the data of one subject in the run's folder.

    Args:
        run: the run's folder.
        name: the subject's code, or its pseudonym.
        site: the subject's, or empty for whichever knows it.
        with_code: call the subject by its code, where it is known, and not by its pseudonym.

    Raises:
        FolderError: there is no run.
        RequestError: no site knows the subject; it names no other.
        LedgerError: a ledger does not verify.
    """
    root, scenario, method = RunFolder(run), read_scenario(run), MethodCard.read(run)
    if root.result.exists():
        check_files(run, gone=True)
    folder, pseudonym, subject = _find(root, sorted(each.name for each in scenario.sites), name, site)
    key = SiteKey.load(folder.key)
    lines, server = verified(folder.ledger, key.public_hex), verified(root.server.ledger)
    side, row = _role(lines, pseudonym)
    code = subject.code if subject else name if name != pseudonym else ""
    context = LineageContext(
        folder=folder,
        method=method,
        scenario=scenario,
        lines=lines,
        server=ServerStore(root.server, server, folder.name),
        pseudonym=pseudonym,
        label=code if with_code and code else pseudonym,
        subject=subject,
        side=side,
        row=row,
    )
    return Trace(
        run=read_run_id(run),
        side="site",
        site=context.site,
        method=method.title,
        subject=pseudonym,
        label=context.label,
        role={"train": "a training subject", "test": "a test subject", "": "not enrolled in the study"}[side],
        artefacts=tuple(_artefacts(context)),
        keys={context.site: key.public_hex, **stated_key(server)},
        notes=tuple(_notes(context)),
    )


def _artefacts(context: LineageContext) -> Iterator[Artefact]:
    """All of them, oldest first. A withdrawal at the site ends an attempt: what comes after it was made again."""
    file = file_artefact(context)
    yield file
    ends = [line.index for line in context.lines if line.event == "withdrawal"]
    start = 0
    for number, end in enumerate([*ends, len(context.lines)], start=1):
        lines = [line for line in context.lines if start <= line.index < end]
        closing = context.lines[end] if end < len(context.lines) else None
        if any(concerns(line, context.pseudonym) for line in lines):
            yield from Attempt(context, lines, closing, f"attempt{number}." if ends else "").artefacts(file)
        if closing is not None and closing.facts.get("subject") == context.pseudonym:
            yield withdrawal_artefact(context, closing)
        start = end + 1
    for line in context.lines:
        if line.event in ("archive", "destruction") and concerns(line, context.pseudonym):
            yield archive_artefact(context, line)


def _find(run: RunFolder, names: Sequence[str], name: str, site: str) -> tuple[SiteFolder, str, Subject | None]:
    """The folder of the site that knows `name`, the subject's pseudonym there, and the subject if its code is known."""
    asked = [run.site_named(site)] if site else [run.site(each) for each in names]
    folders = [folder for folder in asked if folder.ledger.exists() and folder.key.exists()]
    if not folders:
        raise FolderError(
            f"{run.path} has no folder of {site or 'a site'} with a key and a ledger; at the server, trace a shard with "
            "--server"
        )
    for folder in folders:
        key = SiteKey.load(folder.key)
        subject = next((one for one in _people(folder) if name in (one.code, key.pseudonym(one.code))), None)
        if subject is not None:
            return folder, key.pseudonym(subject.code), subject
        if any(concerns(line, name) for line in ledger.read(folder.ledger)):
            return folder, name, None
        if name in _registered(folder):
            return folder, key.pseudonym(name), None
    places = site or f"any site whose folder is here ({', '.join(folder.name for folder in folders)})"
    raise RequestError(
        f"no such subject is known at {places}. Give a code as it stands in the site's register of consent or in the table of "
        "its release, or a pseudonym as the site's ledger has it; `fedprivseg data check` reads the release."
    )


def _people(folder: SiteFolder) -> Iterator[Subject]:
    """Those whom the site enrolled, then everybody whom its release has."""
    configuration, notes = SiteConfiguration.read(folder.configuration), Notes(folder.path)
    if notes.has(PARTICIPANTS):
        cohort = COHORT.validate_json(notes.read(PARTICIPANTS))
        yield from (*cohort.train, *cohort.test)
    try:
        release = dataset_of(configuration.data, configuration.release).read(configuration.release)
    except DataError:
        return  # the release is not where it was: the ledger still tells
    yield from own_subjects(release.subjects, configuration.site)


def _registered(folder: SiteFolder) -> frozenset[str]:
    try:
        return frozenset(Register.read(folder.register).consents)
    except RequestError:
        return frozenset()


def _role(lines: Sequence[Line], pseudonym: str) -> tuple[Literal["train", "test", ""], int]:
    """On which side the last enrolment of the subject put it, and at which place."""
    sides: tuple[Literal["train", "test"], ...] = ("train", "test")
    for line in reversed(lines):
        for side in sides:
            people = line.facts.get(side)
            if line.event == "enrolment" and isinstance(people, list) and pseudonym in people:
                return side, people.index(pseudonym)
    return "", 0


_ABOUT_OTHERS = ("listed", "restored", "ordered", "approved")
"""What lines of archives and destructions say that make no artefact of anybody's data, and end none."""


def _notes(context: LineageContext) -> Iterator[str]:
    """What the ledger does not say."""

    def unsaid(event: str, what: str, of: Callable[[Line], bool]) -> Iterator[str]:
        found = [line.index for line in context.lines if line.event == event and of(line)]
        if found:
            shown = ", ".join(f"{context.site}:{index}" for index in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            yield f"Ledger lines {shown}{more} {what}."

    def derived(line: Line) -> bool:
        kind = find_kind(line.facts.get("kind"))
        return SUBJECTS not in line.facts and (kind is None or kind.derived_from is not None)

    def nobodys(line: Line) -> bool:
        return SUBJECTS not in line.facts and line.facts.get("what") not in _ABOUT_OTHERS

    silent = "released data without saying whose; it cannot be excluded that this subject's was in it"
    yield from unsaid("release", silent, derived)
    yield from unsaid("archive", "tell of an archive without saying whose data", nobodys)
    yield from unsaid("destruction", "tell of a destruction without saying whose data", nobodys)
    yield from unsaid(
        "access", "tell of requests for access to ranges of data; they name no subject", lambda line: True
    )
    if not context.server.lines:
        yield "The server's ledger is not here: that the server received what was released is not shown."
    if context.has_images:
        yield "The vault holds images of three test subjects for the report of this simulation; it is not recorded of whom."
