"""A trace at the site: who a pseudonym is, and what the site's ledger and disk tell of this subject."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from fedprivseg.governance.lineage.artefacts import LineageContext, concerns, file_form, put_away_form, withdrawn_form
from fedprivseg.governance.lineage.attempt import attempt_forms
from fedprivseg.governance.lineage.provenance import Artefact, Trace
from fedprivseg.governance.lineage.reading import stated_key, verified
from fedprivseg.governance.policy.consent import Register
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import PARTICIPANTS, Notes
from fedprivseg.imaging.datasets import dataset_of
from fedprivseg.imaging.splits import COHORT, own_subjects


def trace_subject(run: Path, name: str, *, site: str = "", with_code: bool = False) -> Trace:
    """The life of the data of `name`, a subject's code or its pseudonym, in the run's folder; at `site`, or where it is known.

    with_code: call the subject by its code, where it is known, and not by its pseudonym. Raises FolderError if there is no
    run, RequestError if no site knows the subject (it names no other), LedgerError if a ledger does not verify.
    """
    scenario = read_scenario(run)
    if (run / "result.json").exists():
        check_files(run, gone=True)
    home, pseudonym, subject = _find(run, sorted(each.name for each in scenario.sites), name, site)
    key = SiteKey.load(SiteFolder(home).key)
    own = verified(home / "ledger.jsonl", key.public_hex)
    server = verified(run / "server" / "ledger.jsonl")
    method = MethodCard.read(run)
    side, row = _role(own, pseudonym)
    code = subject.code if subject else name if name != pseudonym else ""
    book = LineageContext(
        run=run,
        home=home,
        method=method,
        scenario=scenario,
        own=own,
        server=server,
        pseudonym=pseudonym,
        label=code if with_code and code else pseudonym,
        subject=subject,
        side=side,
        row=row,
    )
    return Trace(
        run=read_run_id(run),
        side="site",
        site=book.site,
        method=method.title,
        subject=pseudonym,
        label=book.label,
        role={"train": "a training subject", "test": "a test subject", "": "not taken into the study"}[side],
        forms=tuple(_forms(book)),
        keys={book.site: key.public_hex, **({"server": stated_key(server)} if server else {})},
        notes=tuple(_notes(book)),
    )


def _forms(book: LineageContext) -> Iterator[Artefact]:
    """Every form, oldest first. A withdrawal at the site ends an attempt: what comes after it was made anew."""
    file = file_form(book)
    yield file
    ends = [line.index for line in book.own if line.event == "withdrawal"]
    start = 0
    for number, end in enumerate([*ends, len(book.own)], start=1):
        lines = [line for line in book.own if start <= line.index < end]
        closing = book.own[end] if end < len(book.own) else None
        if any(concerns(line, book.pseudonym) for line in lines):
            yield from attempt_forms(book, lines, closing, file, f"attempt{number}." if ends else "")
        if closing is not None and closing.facts.get("subject") == book.pseudonym:
            yield withdrawn_form(book, closing)
        start = end + 1
    for line in book.own:
        if line.event in ("archive", "destruction") and concerns(line, book.pseudonym):
            yield put_away_form(book, line)


def _find(run: Path, names: Sequence[str], name: str, site: str) -> tuple[Path, str, Subject | None]:
    """The folder of the site that knows `name`, the subject's pseudonym there, and the subject if its code is known."""
    if site and site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    asked = [each for each in names if site in ("", each)]
    homes = [RunFolder(run).site(each).path for each in asked]
    homes = [home for home in homes if (home / "ledger.jsonl").exists() and (SiteFolder(home).key).exists()]
    if not homes:
        raise FolderError(
            f"{run} has no folder of {site or 'a site'} with a key and a ledger; at the server, trace a shard with --server"
        )
    for home in homes:
        key = SiteKey.load(SiteFolder(home).key)
        mentioned = [line for line in ledger.read(home / "ledger.jsonl") if concerns(line, name)]
        subject = next((one for one in _people(home) if name in (one.code, key.pseudonym(one.code))), None)
        if subject is not None:
            return home, key.pseudonym(subject.code), subject
        if mentioned:
            return home, name, None
        if name in _registered(home):
            return home, key.pseudonym(name), None
    places = site or f"any site whose folder is here ({', '.join(home.name for home in homes)})"
    raise RequestError(
        f"no such subject is known at {places}. Give a code as it stands in the site's register of consent or in the table of "
        "its release, or a pseudonym as the site's ledger has it; `fedprivseg data check` reads the release."
    )


def _people(home: Path) -> Iterator[Subject]:
    """Those whom the site took in, then everybody whom its release has."""
    station = SiteConfiguration.read(home / "station.json")
    notes = Notes(home)
    if notes.has(PARTICIPANTS):
        taken = COHORT.validate_json(notes.read(PARTICIPANTS))
        yield from (*taken.train, *taken.test)
    try:
        release = dataset_of(station.data, station.release).read(station.release)
    except DataError:
        return  # the release is not where it was: the ledger still tells
    yield from own_subjects(release.subjects, station.site)


def _registered(home: Path) -> frozenset[str]:
    try:
        return frozenset(Register.read(SiteFolder(home).register).consents)
    except RequestError:
        return frozenset()


def _role(own: Sequence[Line], pseudonym: str) -> tuple[Literal["train", "test", ""], int]:
    """On which side the last intake that took the subject in put it, and at which place."""
    sides: tuple[Literal["train", "test"], ...] = ("train", "test")
    for line in reversed(own):
        for side in sides:
            people = line.facts.get(side)
            if line.event == "enrolment" and isinstance(people, list) and pseudonym in people:
                return side, people.index(pseudonym)
    return "", 0


_ABOUT_OTHERS = ("listed", "restored", "ordered", "approved")
"""What lines of archives and destructions say that make no new form of anybody's data, and end none."""


def _notes(book: LineageContext) -> Iterator[str]:
    """What the ledger does not say."""
    silent = [
        line.index
        for line in book.own
        if line.event == "release" and SUBJECTS not in line.facts
        if (kind := find_kind(line.facts.get("kind"))) is None or kind.derived_from is not None
    ]
    if silent:
        yield _unsaid(
            book.site, silent, "let out data without saying whose; it cannot be excluded that this subject's was in it"
        )
    for event in ("archive", "destruction"):
        silent = [
            line.index
            for line in book.own
            if line.event == event and SUBJECTS not in line.facts and line.facts.get("what") not in _ABOUT_OTHERS
        ]
        if silent:
            yield _unsaid(book.site, silent, f"tell of an {event} without saying whose data" if event == "archive" else
                          "tell of a destruction without saying whose data")  # fmt: skip
    accesses = [line.index for line in book.own if line.event == "access"]
    if accesses:
        yield _unsaid(book.site, accesses, "tell of requests for access to ranges of data; they name no subject")
    if not book.server:
        yield "The server's ledger is not here: that the server received what was let out is not shown."
    if book.has_pictures:
        yield (
            "The vault holds pictures of three test subjects for the report of this simulation; it is not recorded of whom."
        )


def _unsaid(site: str, indices: Sequence[int], what: str) -> str:
    shown = ", ".join(f"{site}:{index}" for index in indices[:5])
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"Ledger lines {shown}{more} {what}."
