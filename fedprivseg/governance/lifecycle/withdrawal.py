"""Withdrawal of consent in a study: what was made of one subject's data is named, deleted, and made anew without it.

T/SCGS 313008-2024 asks that the scope of each patient's consent be known (5.1.2-b) and that what is destroyed cannot be read
any more (5.8). Withdrawal narrows the scope to nothing, so at the site everything goes that was made of the subject: slices,
encoders that were trained on them, predictions; and at the server every shard of that site and every model trained on them.
What a sum or a network has taken in cannot be taken out again, so such models are not mended: they are deleted and trained
anew. The next ``fedprivseg run`` of the scenario does that, from what is left.

A site's archives hold what its vault held, and go too. Its backups lie elsewhere: one that was made before a withdrawal is not
restored after it (`safekeeping`).

The patient's images stay where they were before the study, in the hospital's own archive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fedprivseg.core.accounts import begin_again
from fedprivseg.core.documents import damaged, read_json
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.lock import alone
from fedprivseg.core.method_card import MethodCard
from fedprivseg.core.model import Frozen
from fedprivseg.core.models import ModelStore
from fedprivseg.core.records import digest
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.crypto.sealed_files import SealError
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.lifecycle.inventory import (
    NUMBERS,
    SHOWN,
    archives,
    cached,
    forget_notes,
    holding,
    kept,
    lists,
    metrics,
    predictions,
    shards,
)
from fedprivseg.governance.policy.consent import Register, write_register
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.notifications import notify_server

WITHDRAWALS = "withdrawals.json"
"""In a run's folder: every withdrawal that was carried out there."""

OWN_SLICES = ("training-slices", "training-owners", "testing-slices", "testing-owners", "training-profile")
"""What a vault holds of its own images alone, and whose they are; everything else in it has been taught by a method."""


class Deleted(Frozen):
    """One file that is gone: where it was, relative to the run, and the SHA-256 of what it held."""

    path: str
    sha256: str


class Withdrawal(Frozen):
    """What was done for one subject. pseudonym: the subject, as the site alone can tell. line: where the site's ledger says
    so. shards, models: what was deleted at the server; at_sites: at the sites."""

    site: str
    pseudonym: str
    day: date
    line: int
    shards: tuple[Deleted, ...]
    models: tuple[Deleted, ...]
    at_sites: tuple[Deleted, ...]


_WITHDRAWALS: TypeAdapter[tuple[Withdrawal, ...]] = TypeAdapter(tuple[Withdrawal, ...])


def withdraw(run: Path, site: str, subject: str) -> Withdrawal:
    """Carry out the withdrawal of `subject`'s consent at `site` in the run's folder. Doing it again after an interruption
    finishes it.

    Raises FolderError if there is no run or somebody else works in its folder, RequestError if there is no such site, no
    register, or no such subject in it.
    """
    home = RunFolder(run).site_named(site).path
    with alone(run):
        return _withdraw(run, site, home, subject)


def _withdraw(run: Path, site: str, home: Path, subject: str) -> Withdrawal:
    scenario = read_scenario(run)
    names = sorted(each.name for each in scenario.sites)
    station = SiteConfiguration.read(home / "station.json")
    day = station.today or date.today()
    _mark(SiteFolder(home).register, subject, day)
    key = SiteKey.load(SiteFolder(home).key)
    at_sites = [*_forget_site(run, home)]
    if not MethodCard.read(run).coded:
        # A network that was averaged over sites carries every site's data to all of them.
        for other in names:
            at_sites += _forget_learned(run, RunFolder(run).site(other).path)
    for path in cached(station, scenario, subject):
        path.unlink()
    gone = [*_delete(run, shards(run, site))]
    forget_notes(run, site)
    made = [*_delete(run, ModelStore(run / "server").paths())]
    for path in (each for name in names for each in metrics(run, name)):
        path.unlink()
    for path in [each for pattern in (*NUMBERS, *SHOWN) for each in run.glob(pattern)]:
        path.unlink()
    begin_again(run / "server")
    pseudonym = key.pseudonym(subject)
    line = Ledger(home / "ledger.jsonl", key, site).append(
        "withdrawal",
        {
            "at_sites": [each.path for each in at_sites],
            "clause": "5.1.2-b",
            "day": day.isoformat(),
            "models": [each.sha256 for each in made],
            "shards": [each.sha256 for each in gone],
            "subject": pseudonym,
        },
    )
    done = Withdrawal(
        site=site,
        pseudonym=pseudonym,
        day=day,
        line=line.index,
        shards=tuple(gone),
        models=tuple(made),
        at_sites=tuple(at_sites),
    )
    notify_server(run, site, "withdrawal", {"clause": "5.1.2-b", "line": line.index})
    write_text(
        run / WITHDRAWALS,
        json.dumps([each.model_dump(mode="json") for each in (*read_withdrawals(run), done)], indent=1),
    )
    return done


def read_withdrawals(run: Path) -> tuple[Withdrawal, ...]:
    """The withdrawals that were carried out in a run, oldest first. Raises FolderError if their record is damaged."""
    path = run / WITHDRAWALS
    if not path.exists():
        return ()
    remedy = "Put back a copy of it: it says what was deleted"
    try:
        return _WITHDRAWALS.validate_python(read_json(path, remedy))
    except ValidationError:
        raise damaged(path, "was changed: it is no record of withdrawals", remedy) from None


def traces(run: Path, withdrawal: Withdrawal) -> tuple[str, ...]:
    """What of a withdrawn subject can still be found in the run, in sentences; nothing if it was carried out. Looks for every
    deleted shard and model in every file, and for the subject among those from whom the site makes everything else."""
    gone = {each.sha256 for each in (*withdrawal.shards, *withdrawal.models)}
    found = [*holding(run, sorted(run.rglob("*.safetensors")), gone)]
    home = RunFolder(run).site(withdrawal.site).path
    key = SiteKey.load(SiteFolder(home).key)
    notes = Notes(home)
    try:
        subjects = json.loads(notes.read(INTAKE))["subjects"] if notes.has(INTAKE) else []
    except (RequestError, SealError):
        return (*found, f"whom {withdrawal.site} takes in is sealed and cannot be read without its key")
    if any(key.pseudonym(subject) == withdrawal.pseudonym for subject in subjects):
        found.append(f"the subject is among those whom {withdrawal.site} takes in")
    return tuple(found)


def _mark(path: Path, subject: str, day: date) -> None:
    """Write the day of withdrawal into the register: from here on the site's gate lets nothing out."""
    consents = dict(Register.read(path).consents)
    if subject not in consents:
        raise RequestError(
            "the site's register of consent has no such subject; `fedprivseg data check` lists the release's"
        )
    if consents[subject].withdrawn is None or consents[subject].withdrawn > day:  # type: ignore[operator]
        consents[subject] = replace(consents[subject], withdrawn=day)
        write_register(path, consents.values())


def _forget_site(run: Path, home: Path) -> Iterator[Deleted]:
    """Everything that the site made of its subjects; its key, ledger and papers stay."""
    yield from _delete(run, kept(home))
    yield from _delete(run, predictions(home))
    yield from _delete(run, archives(home))
    for path in lists(home, (PARTICIPANTS, INTAKE)):
        path.unlink()


def _forget_learned(run: Path, home: Path) -> Iterator[Deleted]:
    """What a site learned from the others; its own slices stay."""
    yield from _delete(run, [path for path in kept(home) if path.stem not in OWN_SLICES])


def _delete(run: Path, paths: list[Path]) -> Iterator[Deleted]:
    for path in paths:
        # A prediction's name has the subject's code in it.
        name = str((path if path.suffix in (".safetensors", ".sealed", ".archive") else path.parent).relative_to(run))
        sha256 = digest(path.read_bytes())
        path.unlink()
        yield Deleted(path=name, sha256=sha256)
