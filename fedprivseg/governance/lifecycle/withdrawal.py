"""Withdrawal of consent in a study: artefacts derived from one subject's data are named, deleted, and made again without it.

T/SCGS 313008-2024 asks that the scope of each patient's consent be known (5.1.2-b) and that what is destroyed cannot be read
any more (5.8). Withdrawal narrows the scope to nothing, so at the site everything goes that was derived from the subject:
slices, encoders that were trained on them, predictions; and at the server every shard of that site and every model in the
register of models. What a sum or a network has learned cannot be taken out again, so such models are not repaired: they are
deleted and trained again. The next ``fedprivseg run`` of the scenario does that, from what is left.

A site's archives hold what its vault held, and go too. Its backups lie elsewhere: one that was made before a withdrawal is not
restored after it (`backup`).

The patient's images stay where they were before the study, in the hospital's own archive.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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
from fedprivseg.governance.lifecycle import inventory
from fedprivseg.governance.policy.consent import Register, write_register
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.notifications import notify_server

OWN_SLICES = (
    *("training-slices", "training-owners", "training-order", "training-profile"),
    *("testing-slices", "testing-owners", "testing-order"),
)
"""What a vault holds of its own images alone, whose they are and in which order they leave; all else a method has taught."""

_CLAUSE = "5.1.2-b"


class Deleted(Frozen):
    """One file that is gone: where it was, relative to the run, and the SHA-256 of what it held."""

    path: str
    sha256: str


class Withdrawal(Frozen):
    """What was done for one subject.

    Attributes:
        pseudonym: the subject, as the site alone can tell.
        line: where the site's ledger says so.
        shards: what was deleted at the server of the site's.
        models: what was deleted there of models.
        at_sites: what was deleted at the sites.
    """

    site: str
    pseudonym: str
    day: date
    line: int
    shards: tuple[Deleted, ...]
    models: tuple[Deleted, ...]
    at_sites: tuple[Deleted, ...]


_WITHDRAWALS: TypeAdapter[tuple[Withdrawal, ...]] = TypeAdapter(tuple[Withdrawal, ...])


def withdraw(run: Path, site: str, subject: str) -> Withdrawal:
    """Execute the withdrawal of a subject's consent in the run's folder. Doing it again after an interruption finishes it.

    Raises:
        FolderError: there is no run, or somebody else works in its folder.
        RequestError: there is no such site, no register, or no such subject in it.
    """
    folder = RunFolder(run).site_named(site)
    with alone(run):
        return _withdraw(RunFolder(run), folder, subject)


def _withdraw(run: RunFolder, folder: SiteFolder, subject: str) -> Withdrawal:
    scenario = read_scenario(run.path)
    sites = [run.site(each.name) for each in sorted(scenario.sites, key=lambda each: each.name)]
    configuration = SiteConfiguration.read(folder.configuration)
    day = configuration.today or date.today()
    _mark(folder.register, subject, day)
    key = SiteKey.load(folder.key)
    at_sites = [*_forget_site(run, folder)]
    if not MethodCard.read(run.path).coded:
        # A network that was averaged over sites carries every site's data to all of them.
        for other in sites:
            at_sites += _delete(run, [path for path in inventory.vault_files(other) if path.stem not in OWN_SLICES])
    _remove(inventory.cached(configuration, scenario, subject))
    shards = [*_delete(run, run.server.shards(folder.name))]
    inventory.forget_notes(run.server, folder.name)
    models = [*_delete(run, ModelStore(run.server.path).paths())]
    _remove(each for other in sites for each in inventory.metrics(run.server, other.name))
    _remove(each for pattern in (*inventory.RESULTS, *inventory.SHOWN) for each in [*run.path.glob(pattern)])
    begin_again(run.server.path)
    pseudonym = key.pseudonym(subject)
    line = Ledger(folder.ledger, key, folder.name).append(
        "withdrawal",
        {
            "at_sites": [each.path for each in at_sites],
            "clause": _CLAUSE,
            "day": day.isoformat(),
            "models": [each.sha256 for each in models],
            "shards": [each.sha256 for each in shards],
            "subject": pseudonym,
        },
    )
    done = Withdrawal(
        site=folder.name,
        pseudonym=pseudonym,
        day=day,
        line=line.index,
        shards=tuple(shards),
        models=tuple(models),
        at_sites=tuple(at_sites),
    )
    notify_server(run.path, folder.name, "withdrawal", {"clause": _CLAUSE, "line": line.index})
    told = [each.model_dump(mode="json") for each in (*read_withdrawals(run.path), done)]
    write_text(run.withdrawals, json.dumps(told, indent=1))
    return done


def read_withdrawals(run: Path) -> tuple[Withdrawal, ...]:
    """The withdrawals that were executed in a run, oldest first. Raises FolderError if their record is damaged."""
    path = RunFolder(run).withdrawals
    if not path.exists():
        return ()
    remedy = "Put back a copy of it: it says what was deleted"
    try:
        return _WITHDRAWALS.validate_python(read_json(path, remedy))
    except ValidationError:
        raise damaged(path, "was changed: it is no record of withdrawals", remedy) from None


def traces(run: Path, withdrawal: Withdrawal) -> tuple[str, ...]:
    """What of a withdrawn subject can still be found in the run, in sentences; nothing if the withdrawal was executed. Looks
    for every deleted shard and model in every file, and for the subject among those whom the site has enrolled."""
    gone = {each.sha256 for each in (*withdrawal.shards, *withdrawal.models)}
    found = [*inventory.holding(RunFolder(run), sorted(run.rglob("*.safetensors")), gone)]
    folder = RunFolder(run).site(withdrawal.site)
    key, notes = SiteKey.load(folder.key), Notes(folder.path)
    try:
        subjects = json.loads(notes.read(INTAKE))["subjects"] if notes.has(INTAKE) else []
    except (RequestError, SealError):
        return (*found, f"whom {withdrawal.site} has enrolled is encrypted and cannot be read without its key")
    if any(key.pseudonym(subject) == withdrawal.pseudonym for subject in subjects):
        found.append(f"the subject is among those whom {withdrawal.site} has enrolled")
    return tuple(found)


def _mark(path: Path, subject: str, day: date) -> None:
    """Write the day of withdrawal into the register: from here on the site's gate lets nothing out."""
    consents = dict(Register.read(path).consents)
    if subject not in consents:
        raise RequestError(
            "the site's register of consent has no such subject; `fedprivseg data check` lists the release's"
        )
    before = consents[subject].withdrawn
    if before is None or before > day:
        consents[subject] = replace(consents[subject], withdrawn=day)
        write_register(path, consents.values())


def _forget_site(run: RunFolder, folder: SiteFolder) -> Iterator[Deleted]:
    """Everything that the site made of its subjects; its key, ledger, policy, consent and agreement files stay."""
    for paths in (inventory.vault_files(folder), inventory.predictions(folder), inventory.archives(folder)):
        yield from _delete(run, paths)
    _remove(inventory.lists(folder, (PARTICIPANTS, INTAKE)))


def _delete(run: RunFolder, paths: list[Path]) -> Iterator[Deleted]:
    for path in paths:
        # A prediction's name has the subject's code in it.
        named = path if path.suffix in (".safetensors", ".sealed", ".archive") else path.parent
        sha256 = digest(path.read_bytes())
        path.unlink()
        yield Deleted(path=str(named.relative_to(run.path)), sha256=sha256)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()
