"""The simulated hospitals of a run: each gets a folder with its station, policy, register of consent, agreement and plan for
a leak, and the people and records of whom access is asked (`wards`).

In a deployment the hospital writes these files itself. A simulation plays its part: it copies the policy that stands beside the
site's description, narrowed by what the scenario restricts, and lets simulated patients and parties sign.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import tomli_w

from fedprivseg.config import ConsentConfig, Scenario
from fedprivseg.data.splits import Cohort
from fedprivseg.errors import RequestError
from fedprivseg.files import write_text
from fedprivseg.policy.agreement import read_agreement
from fedprivseg.policy.cedar_terms import HOUSE
from fedprivseg.policy.consent import Consent, Duo, write_register
from fedprivseg.policy.foresight import Parties, draw_up, effective
from fedprivseg.policy.keys import SiteKey
from fedprivseg.policy.ledger import Ledger
from fedprivseg.policy.response import RESPONSE, default_plan
from fedprivseg.policy.sealing import SealingKey
from fedprivseg.records import Kind
from fedprivseg.results import read_scenario
from fedprivseg.site.rules import AGREEMENT, REGISTER, disposed
from fedprivseg.site.station import station_folder
from fedprivseg.site.vault import PASSPHRASE, POLICY, SEALING_KEY
from fedprivseg.wards import people

KEY = "key.pem"


def settle(
    folder: Path, scenario: Scenario, exports: frozenset[Kind], release: Path, cache: Path, cohorts: dict[str, Cohort]
) -> None:
    """Write the folder of every simulated hospital under `folder`, and the server's key. What is there already stays: a
    resumed run finds the register as its events left it. exports: the kinds that the method declares. cohorts: everybody whom
    the release has, by site."""
    server_key = _key(folder / "server" / KEY)
    for site in scenario.sites:
        home = folder / "sites" / site.name
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)  # the hospital's own lists of patients lie in it as they are
        station = {
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
        write_text(home / "station.json", json.dumps(station, indent=1))
        policy = effective(scenario, site)
        if policy is not None:
            write_text(home / POLICY, tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True)))
        for name, text in site.cedar.items():
            (home / HOUSE).mkdir(exist_ok=True)
            write_text(home / HOUSE / name, text)
        sealed = policy is None or policy.at_rest == "encrypted"
        if sealed and not (home / SEALING_KEY).exists() and not disposed(home):
            SealingKey.create(home / SEALING_KEY, os.environ.get(PASSPHRASE))
        cohort = cohorts[site.name]
        people(
            home,
            [*cohort.train, *cohort.test],
            scenario.study.data,
            () if policy is None else policy.special_diseases,
            scenario.study.today or date.today(),
            scenario.data.seed,
        )
        if scenario.study.consent is not None and not (home / REGISTER).exists():
            codes = [one.code for one in (*cohort.train, *cohort.test)]
            write_register(
                home / REGISTER, _signed_by_patients(codes, scenario.study.consent, site.name, scenario.study.data)
            )
        if not (home / AGREEMENT).exists():
            agreement = draw_up(scenario, site.name, exports, _key(home / "vault" / KEY), server_key)
            if agreement is not None:
                write_text(home / AGREEMENT, agreement.model_dump_json(indent=1))
        if not (home / RESPONSE).exists():
            stated = read_agreement(home / AGREEMENT)
            plan = default_plan(site.name, None if stated is None else stated.terms.breach)
            write_text(home / RESPONSE, tomli_w.dumps(plan.model_dump(mode="json")))


def home_of(run: Path, site: str) -> Path:
    """The folder of the hospital `site` in a run; it may have been lost. Raises FolderError if there is no run, RequestError
    that names the sites if it is none of them."""
    scenario = read_scenario(run)
    names = sorted(each.name for each in scenario.sites)
    if site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    return station_folder(run, site)


def ledger_of(home: Path, site: str) -> Ledger:
    """The ledger of the hospital whose folder is `home`, open for appending; its key is made if it has none. Raises
    LedgerError, RequestError."""
    return Ledger(home / "ledger.jsonl", _key(home / "vault" / KEY), site)


def keys_of(run: Path, site: str) -> tuple[SiteKey, SiteKey]:
    """The keys with which the simulated hospital `site` and its server sign; made if there are none yet."""
    return _key(station_folder(run, site) / "vault" / KEY), _key(run / "server" / KEY)


def parties_in(run: Path, scenario: Scenario) -> dict[str, Parties]:
    """By site, the agreement that lies in the run folder `run` and the keys of who signs it; sites without one are left out.
    Nothing is written: a party whose key is not there could sign nothing, and stands with a key of no other use."""
    found = {}
    for site in scenario.sites:
        home = station_folder(run, site.name)
        if not (home / AGREEMENT).exists():
            continue
        agreement, unreadable = None, False
        try:
            agreement = read_agreement(home / AGREEMENT)
        except RequestError:  # its gate refuses everything then, and says so
            unreadable = True
        paths = home / "vault" / KEY, run / "server" / KEY
        own, server = (SiteKey.load(path) if path.exists() else SiteKey.new() for path in paths)
        found[site.name] = Parties(own, server, agreement, unreadable)
    return found


def _key(path: Path) -> SiteKey:
    if path.exists():
        return SiteKey.load(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SiteKey.create(path)


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
