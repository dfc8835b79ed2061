"""The simulated hospitals of a run: each gets a folder with its configuration, policy, register of consent, agreement and
response plan, and the people and records of whom access is asked (`synthetic_people`).

In a deployment the hospital writes these files itself. A simulation plays its part: it copies the policy that stands beside the
site's description, narrowed by what the scenario restricts, and lets simulated patients and parties sign.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from datetime import date
from pathlib import Path

import tomli_w

from fedprivseg.core.config import Scenario, SiteConfig
from fedprivseg.core.documents import damaged
from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.core.study_config import ConsentConfig
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.ledger.identities import read_identities
from fedprivseg.governance.lifecycle.response_plan import default_plan
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.consent import Consent, Duo, write_register
from fedprivseg.governance.policy.preview import Parties, draw_up, effective
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.vault import PASSPHRASE, seals
from fedprivseg.imaging.splits import Cohort
from fedprivseg.study.synthetic_people import people

_LOST_SITE = "Put back a copy of it, or the site's folder from a backup: `fedprivseg vault restore`"
_LOST_SERVER = "Put back a copy of it: the sites know the server by it"


def provision_sites(
    folder: Path,
    scenario: Scenario,
    exports: frozenset[KindSpec],
    release: Path,
    cache: Path,
    cohorts: dict[str, Cohort],
) -> None:
    """Write the folder of every simulated hospital under `folder`, and the server's key.

    A hospital's files are written once. Its ``station.json`` is the last of them: from then on the folder is the hospital's,
    and a resumed run only checks that it can work there. A policy that was tightened stays so, and a register from which
    somebody was taken does not come back.

    folder: the run's. exports: the kinds that the method declares. release, cache: where the images are, and where those on the
    network grid are kept. cohorts: everybody whom the release has, by site.

    Raises FolderError if a hospital that has worked before lacks its key or its configuration, or if this is not the run's.
    """
    run = RunFolder(folder)
    known = _sites_known(run)
    if known and not run.server.key.exists():
        raise damaged(run.server.key, "is missing", _LOST_SERVER)
    server_key = SiteKey.at(run.server.key)
    for site in scenario.sites:
        home = run.site(site.name)
        if home.configuration.exists() or home.ledger.exists() or site.name in known:
            _check_hospital(home, release, server_key.public_hex, known)
            continue
        home.path.mkdir(parents=True, exist_ok=True)
        home.path.chmod(0o700)  # the hospital's own lists of patients lie in it as they are
        _write_files(home, scenario, site, exports, server_key, cohorts[site.name])
        content = SiteConfiguration(
            folder=home.path,
            site=site.model_copy(update={"policy": {}, "cedar": {}}),
            data=scenario.data,
            release=release,
            cache=cache / site.name,
            today=scenario.study.today,
            intake=scenario.study.intake,
            server_key=server_key.public_hex,
            server_domain=scenario.server.domain,
        )
        write_text(home.configuration, content.model_dump_json(indent=1))


def _write_files(
    home: SiteFolder,
    scenario: Scenario,
    site: SiteConfig,
    exports: frozenset[KindSpec],
    server_key: SiteKey,
    cohort: Cohort,
) -> None:
    """Write the policy, consent and agreement files of a hospital and what else it brings to the study, as far as they are not
    there."""
    policy, study, everybody = effective(scenario, site), scenario.study, [*cohort.train, *cohort.test]
    if policy is not None and not home.policy.exists():
        write_text(home.policy, tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True)))
    for name, text in site.cedar.items():
        home.cedar.mkdir(exist_ok=True)
        write_text(home.cedar / name, text)
    if seals(policy) and not home.sealing_key.exists():
        SealingKey.create(home.sealing_key, os.environ.get(PASSPHRASE))
    special = () if policy is None else policy.special_diseases
    people(home, everybody, study.data, special, study.today or date.today(), scenario.data.seed)
    if study.consent is not None and not home.register.exists():
        codes = [one.code for one in everybody]
        write_register(home.register, _signed_by_patients(codes, study.consent, site.name, study.data))
    if not home.agreement.exists():
        agreement = draw_up(scenario, site.name, exports, SiteKey.at(home.key), server_key)
        if agreement is not None:
            write_text(home.agreement, agreement.model_dump_json(indent=1))
    if not home.response_plan.exists():
        stated = read_agreement(home.agreement)
        plan = default_plan(site.name, None if stated is None else stated.terms.breach)
        write_text(home.response_plan, tomli_w.dumps(plan.model_dump(mode="json")))


def _check_hospital(home: SiteFolder, release: Path, server_hex: str, known: Container[str]) -> None:
    """Raise FolderError unless a hospital can go on in its folder `home`.

    What it reads and whom it deals with must be this run's, and it must still have the key by which the server knows it.
    """
    if home.name in known and not home.key.exists():
        raise damaged(home.key, "is missing", _LOST_SITE)
    found = SiteConfiguration.read(home.configuration)
    if found.site.name != home.name:
        raise damaged(home.configuration, f"is that of the site {found.site.name!r}")
    if found.server_key not in (None, server_hex):
        raise damaged(home.configuration, "has another server's key on file than this run's")
    if found.release != release:
        raise damaged(
            home.configuration,
            f"says that the images are in {found.release}, and this run reads {release}",
            "Run from where it was begun, with the same data and FEDPRIVSEG_CACHE, or change `release` in it",
        )


def _sites_known(run: RunFolder) -> frozenset[str]:
    """The sites that have shown their key to the server of the run."""
    try:
        return frozenset(read_identities(run.server.path)) if run.server.identities.exists() else frozenset()
    except LedgerError as fault:
        raise FolderError(str(fault)) from None


def keys_of(run: Path, site: str) -> tuple[SiteKey, SiteKey]:
    """The keys with which the simulated hospital `site` and its server sign; made if there are none yet."""
    return SiteKey.at(RunFolder(run).site(site).key), SiteKey.at(RunFolder(run).server.key)


def parties_in(run: Path, scenario: Scenario) -> dict[str, Parties]:
    """By site, the agreement that lies in the run folder `run` and the keys of who signs it; sites without one are left out.
    Nothing is written: a party whose key is not there could sign nothing, and stands with a key of no other use."""
    found = {}
    for site in scenario.sites:
        home = RunFolder(run).site(site.name)
        if not home.agreement.exists():
            continue
        agreement, unreadable = None, False
        try:
            agreement = read_agreement(home.agreement)
        except RequestError:  # its gate refuses everything then, and says so
            unreadable = True
        paths = home.key, RunFolder(run).server.key
        own, server = (SiteKey.load(path) if path.exists() else SiteKey.new() for path in paths)
        found[site.name] = Parties(own, server, agreement, unreadable)
    return found


def _signed_by_patients(codes: Sequence[str], config: ConsentConfig, site: str, data: str) -> list[Consent]:
    """One line a simulated patient; the first by code refuse or have withdrawn, as the scenario says."""
    refused, withdrawn = config.refused.get(site, 0), config.withdrawn.get(site, 0)
    return [
        Consent(
            subject=code,
            purposes=frozenset(Duo(term) for term in config.purposes),
            diseases=frozenset(),
            range=frozenset({data}),
            sharing=number >= refused,
            valid_from=config.start,
            valid_until=config.end,
            withdrawn=config.start if refused <= number < refused + withdrawn else None,
            channel="simulated",
            source="simulated",
        )
        for number, code in enumerate(sorted(codes))
    ]
