"""A breach drill at one site of a run: its ledger, its response plan, and what its agreement promises (clause 5.3.2-a)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from fedprivseg.core.errors import RequestError
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.format import SIDES, SUBJECTS
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.lifecycle.breach_drill import Drill, Leak, drill
from fedprivseg.governance.lifecycle.response_plan import RESPONSE, breaks, read_plan
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.governance.policy.consent import Register


def rehearse(run: Path, site: str, lines: Sequence[Line], leak: Leak, found: datetime) -> Drill:
    """What `leak` would have meant if it were discovered at the time `found`. lines: of the site's ledger, which verifies. The
    findings say too where the plan does less than the agreement promises. Raises RequestError if the site has no plan."""
    home = RunFolder(run).site(site).path
    if not (home / RESPONSE).exists():
        raise RequestError(
            f"{site} has no plan for a leak: its folder holds no {RESPONSE}. Write one: a [[contacts]] table an "
            "office, with role, reach, hours and levels"
        )
    plan = read_plan(home / RESPONSE)
    answer = drill(lines, plan, leak, found)
    agreement = read_agreement(SiteFolder(home).agreement)
    less = () if agreement is None else breaks(plan, agreement.terms.breach)
    return replace(answer, findings=(*answer.findings, *less))


def pseudonym(run: Path, site: str, lines: Sequence[Line], code: str) -> str:
    """What stands in the site's ledger, `lines`, for the subject `code`. Raises RequestError if the site has no key yet, or
    knows no such subject: a code with a slip in it must not come out as a leak that concerns nobody."""
    path = RunFolder(run).site(site).key
    if not path.exists():
        raise RequestError(f"{site} has no key yet, so no line of its ledger speaks of any subject")
    name = SiteKey.load(path).pseudonym(code)
    register = RunFolder(run).site(site).register
    # Lists alone: a line on access names whoever was asked for, known or not.
    lists = (line.facts.get(fact) for line in lines for fact in (*SIDES, SUBJECTS))
    taken = any(name in each for each in lists if isinstance(each, list))
    if not taken and not (register.exists() and code in Register.read(register).consents):
        raise RequestError(
            f"{site} knows no such subject: neither its ledger nor a register of consent names the code. Give it as it stands "
            "in the register or in the table of the release; `fedprivseg data check` reads the release."
        )
    return name
