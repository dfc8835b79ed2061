"""A breach drill at one site of a run: its ledger, its response plan, and what its agreement promises (clause 5.3.2-a)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fedprivseg.errors import RequestError
from fedprivseg.hospitals import KEY
from fedprivseg.policy.agreement import read_agreement
from fedprivseg.policy.drill import Drill, Leak, drill
from fedprivseg.policy.keys import SiteKey
from fedprivseg.policy.ledger import Line
from fedprivseg.policy.response import RESPONSE, breaks, read_plan
from fedprivseg.site.rules import AGREEMENT
from fedprivseg.site.station import station_folder


def rehearse(run: Path, site: str, lines: Sequence[Line], leak: Leak, found: datetime) -> Drill:
    """What `leak` would have meant if it were discovered at the time `found`. lines: of the site's ledger, which verifies. The
    findings say too where the plan does less than the agreement promises. Raises RequestError if the site has no plan."""
    home = station_folder(run, site)
    if not (home / RESPONSE).exists():
        raise RequestError(
            f"{site} has no plan for a leak: its folder holds no {RESPONSE}. Write one: a [[contacts]] table an "
            "office, with role, reach, hours and levels"
        )
    plan = read_plan(home / RESPONSE)
    answer = drill(lines, plan, leak, found)
    agreement = read_agreement(home / AGREEMENT)
    less = () if agreement is None else breaks(plan, agreement.terms.breach)
    return replace(answer, findings=(*answer.findings, *less))


def pseudonym(run: Path, site: str, code: str) -> str:
    """What stands in the site's ledger for the subject `code`. Raises RequestError if the site has no key yet."""
    path = station_folder(run, site) / "vault" / KEY
    if not path.exists():
        raise RequestError(f"{site} has no key yet, so no line of its ledger speaks of any subject")
    return SiteKey.load(path).pseudonym(code)
