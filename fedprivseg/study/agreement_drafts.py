"""The data-use agreements of a run: drafted before it begins, signed by each party, found by its gates (clause 5.3.2-a).

They lie where a site's gate looks for them, ``<run>/sites/<site>/agreement.json``. Drafting makes the parties' keys, if there
are none yet, and writes the scenario, so that the run that follows is the one that was agreed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from fedprivseg.core.accounts import begin_again
from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.lock import alone
from fedprivseg.core.results import read_scenario, write_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.study_config import AgreementConfig
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.policy.agreement import Agreement, read_agreement
from fedprivseg.governance.policy.preview import Parties, terms_of
from fedprivseg.methods import resolve
from fedprivseg.study.run import check_folder
from fedprivseg.study.simulated_sites import keys_of

TERM_DAYS = 365
"""How long a draft runs if nobody says until when."""

Party = Literal["site", "server"]


def draft(folder: Path, scenario: Scenario, start: date | None = None, end: date | None = None) -> list[Path]:
    """Write an unsigned agreement for every site of `scenario` into a run's folder.

    Terms are those of the scenario's ``[study.agreement]``, if it has one. Without either, a term begins on the day of the
    study and runs for a year.

    Args:
        folder: the run's.
        scenario: what is to be run there.
        start: first day in place of the scenario's.
        end: last day in place of the scenario's.

    Returns:
        The agreements' files.

    Raises:
        FolderError: the folder holds another scenario, a finished run or such agreements.
        RequestError: the term ends before it starts.
    """
    check_folder(folder, scenario)
    run = RunFolder(folder)
    if run.result.exists():
        raise FolderError(f"{folder} holds a finished run; an agreement comes before it: choose another with --out")
    homes = [run.site(site.name) for site in scenario.sites]
    taken = [home.name for home in homes if home.agreement.exists()]
    if len(taken) == len(homes):
        raise FolderError(f"{folder} has an agreement of {', '.join(taken)} already; remove the file to draft another")
    stated = scenario.study.agreement
    first = start or (stated.start if stated else scenario.study.today or date.today())
    last = end or (stated.end if stated else first + timedelta(days=TERM_DAYS))
    if last < first:
        raise RequestError(f"--end is {last}, before the agreement starts on {first}; give a later day")
    config = (stated or AgreementConfig(start=first, end=last)).model_copy(update={"start": first, "end": last})
    exports = resolve(scenario.method).declared
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            # First: by it the same command knows its folder again, whenever it was killed.
            write_scenario(folder, scenario)
            begin_again(run.server.path)  # who was blocked for want of an agreement is asked again
            for home in homes:
                if home.agreement.exists():
                    continue
                home.path.mkdir(parents=True, exist_ok=True)
                home.path.chmod(0o700)
                terms = terms_of(config, scenario, home.name, exports, Parties(*keys_of(folder, home.name), None))
                write_text(home.agreement, Agreement(terms=terms).model_dump_json(indent=1))
    except OSError as fault:
        raise FolderError(f"{folder} cannot be written ({fault.strerror}); choose another with --out") from None
    return [home.agreement for home in homes]


def found(place: Path, sites: Sequence[str] = ()) -> dict[Path, Agreement]:
    """The agreements of a run's folder, of all its sites or of `sites`; or the one of a file.

    Raises:
        RequestError: there is none, or one cannot be read.
    """
    if place.is_file():
        files = [place]
    else:
        names = list(sites) or [site.name for site in read_scenario(place).sites]
        files = [RunFolder(place).site_named(name).agreement for name in names]
    read = {file: read_agreement(file) for file in files}
    if not any(read.values()):
        raise RequestError(f"{place} holds no agreement; `fedprivseg agreement new SCENARIO` drafts one")
    if lacking := [file.parent.name for file, agreement in read.items() if agreement is None and sites]:
        raise RequestError(f"{place} holds no agreement of {', '.join(lacking)}")
    return {file: agreement for file, agreement in read.items() if agreement is not None}


def sign(file: Path, agreement: Agreement, party: Party, key: Path | None = None) -> Agreement:
    """Sign an agreement as one of its parties, and write it.

    Args:
        file: the agreement's.
        agreement: what it says.
        party: who signs.
        key: the party's key file; None for that of the run's folder in which the file lies.

    Raises:
        RequestError: the terms name another key, or there is none.
    """
    if key is None:
        run = file.parent.parent.parent
        if not RunFolder(run).scenario.exists():
            raise RequestError(f"{file} lies in no run folder; name the {party}'s key with --key")
        signer = keys_of(run, file.parent.name)[0 if party == "site" else 1]
    else:
        signer = SiteKey.load(key)
    signed = agreement.signed(party, signer)
    write_text(file, signed.model_dump_json(indent=1))
    return signed


def signatures(agreement: Agreement) -> dict[Party, str]:
    """Of each party: ``valid``, ``not valid`` or ``missing``."""
    lacking = agreement.lacks()
    given: dict[Party, str] = {"site": agreement.site_signature, "server": agreement.server_signature}
    return {
        party: "valid" if party not in lacking else "not valid" if signature else "missing"
        for party, signature in given.items()
    }
