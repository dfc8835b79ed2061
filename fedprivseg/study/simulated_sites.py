"""The simulated hospitals of a run: each gets a folder with its station, policy, register of consent, agreement and plan for
a leak, and the people and records of whom access is asked (`wards`).

In a deployment the hospital writes these files itself. A simulation plays its part: it copies the policy that stands beside the
site's description, narrowed by what the scenario restricts, and lets simulated patients and parties sign.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Sequence
from datetime import date
from pathlib import Path

import tomli_w

from fedprivseg.core.config import ConsentConfig, Scenario, SiteConfig
from fedprivseg.core.documents import damaged
from fedprivseg.core.errors import FolderError, LedgerError, RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.runfolder import KEY, RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.ledger.identities import IDENTITIES, read_identities
from fedprivseg.governance.lifecycle.response_plan import RESPONSE, default_plan
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.consent import Consent, Duo, write_register
from fedprivseg.governance.policy.preview import Parties, draw_up, effective
from fedprivseg.governance.sitefolder.configuration import STATION, SiteConfiguration
from fedprivseg.governance.sitefolder.history import LEDGER
from fedprivseg.governance.sitefolder.vault import PASSPHRASE, POLICY, SEALING_KEY
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

    A hospital's papers are written once. Its ``station.json`` is the last of them: from then on the folder is the hospital's,
    and a resumed run only checks that it can work there. A policy that was tightened stays so, and a register from which
    somebody was taken does not come back.

    folder: the run's. exports: the kinds that the method declares. release, cache: where the images are, and where those on the
    network grid are kept. cohorts: everybody whom the release has, by site.

    Raises FolderError if a hospital that has worked before lacks its key or its station, or if this is not the run's.
    """
    known = _sites_known(folder)
    if known and not (folder / "server" / KEY).exists():
        raise damaged(folder / "server" / KEY, "is missing", _LOST_SERVER)
    server_key = SiteKey.at(folder / "server" / KEY)
    for site in scenario.sites:
        home = folder / "sites" / site.name
        station = home / STATION
        if station.exists() or (home / LEDGER).exists() or site.name in known:
            _check_hospital(home, site.name, release, server_key.public_hex, known)
            continue
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)  # the hospital's own lists of patients lie in it as they are
        _write_papers(home, scenario, site, exports, server_key, cohorts[site.name])
        content = {
            "site": site.model_dump(exclude={"policy", "cedar"}),
            "data": scenario.data.model_dump(),
            "release": str(release),
            "cache": str(cache / site.name),
            "today": None if scenario.study.today is None else scenario.study.today.isoformat(),
            "intake": None if scenario.study.intake is None else scenario.study.intake.isoformat(),
            "server_key": server_key.public_hex,
            "server_domain": scenario.server.domain,
            "withdraws": "" if scenario.study.consent is None else scenario.study.consent.withdraws.get(site.name, ""),
        }
        write_text(station, json.dumps(content, indent=1))


def _write_papers(
    home: Path,
    scenario: Scenario,
    site: SiteConfig,
    exports: frozenset[KindSpec],
    server_key: SiteKey,
    cohort: Cohort,
) -> None:
    """What a hospital brings to the study, as far as an interrupted attempt has not written it."""
    policy = effective(scenario, site)
    if policy is not None and not (home / POLICY).exists():
        write_text(home / POLICY, tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True)))
    for name, text in site.cedar.items():
        SiteFolder(home).cedar.mkdir(exist_ok=True)
        write_text(SiteFolder(home).cedar / name, text)
    sealed = policy is None or policy.at_rest == "encrypted"
    if sealed and not (home / SEALING_KEY).exists():
        SealingKey.create(home / SEALING_KEY, os.environ.get(PASSPHRASE))
    people(
        home,
        [*cohort.train, *cohort.test],
        scenario.study.data,
        () if policy is None else policy.special_diseases,
        scenario.study.today or date.today(),
        scenario.data.seed,
    )
    consent = scenario.study.consent
    if consent is not None and not (SiteFolder(home).register).exists():
        codes = [one.code for one in (*cohort.train, *cohort.test)]
        write_register(SiteFolder(home).register, _signed_by_patients(codes, consent, site.name, scenario.study.data))
    if not (SiteFolder(home).agreement).exists():
        agreement = draw_up(scenario, site.name, exports, SiteKey.at(SiteFolder(home).key), server_key)
        if agreement is not None:
            write_text(SiteFolder(home).agreement, agreement.model_dump_json(indent=1))
    if not (home / RESPONSE).exists():
        stated = read_agreement(SiteFolder(home).agreement)
        plan = default_plan(site.name, None if stated is None else stated.terms.breach)
        write_text(home / RESPONSE, tomli_w.dumps(plan.model_dump(mode="json")))


def _check_hospital(home: Path, name: str, release: Path, server_hex: str, known: Container[str]) -> None:
    """Raise FolderError unless the hospital `name` can go on in its folder `home`.

    What it reads and whom it deals with must be this run's, and it must still have the key by which the server knows it.
    """
    key = SiteFolder(home).key
    if name in known and not key.exists():
        raise damaged(key, "is missing", _LOST_SITE)
    station = SiteConfiguration.read(home / STATION)
    if station.site.name != name:
        raise damaged(home / STATION, f"is that of the site {station.site.name!r}")
    if station.server_key not in (None, server_hex):
        raise damaged(home / STATION, "has another server's key on file than this run's")
    if station.release != release:
        raise damaged(
            home / STATION,
            f"says that the images are in {station.release}, and this run reads {release}",
            "Run from where it was begun, with the same data and FEDPRIVSEG_CACHE, or change `release` in it",
        )


def _sites_known(folder: Path) -> frozenset[str]:
    """The sites that have shown their key to the server of the run."""
    try:
        return (
            frozenset(read_identities(folder / "server")) if (folder / "server" / IDENTITIES).exists() else frozenset()
        )
    except LedgerError as fault:
        raise FolderError(str(fault)) from None


def keys_of(run: Path, site: str) -> tuple[SiteKey, SiteKey]:
    """The keys with which the simulated hospital `site` and its server sign; made if there are none yet."""
    return SiteKey.at(RunFolder(run).site(site).key), SiteKey.at(run / "server" / KEY)


def parties_in(run: Path, scenario: Scenario) -> dict[str, Parties]:
    """By site, the agreement that lies in the run folder `run` and the keys of who signs it; sites without one are left out.
    Nothing is written: a party whose key is not there could sign nothing, and stands with a key of no other use."""
    found = {}
    for site in scenario.sites:
        home = RunFolder(run).site(site.name).path
        if not (SiteFolder(home).agreement).exists():
            continue
        agreement, unreadable = None, False
        try:
            agreement = read_agreement(SiteFolder(home).agreement)
        except RequestError:  # its gate refuses everything then, and says so
            unreadable = True
        paths = SiteFolder(home).key, run / "server" / KEY
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
