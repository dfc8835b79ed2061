"""Checks of the clauses on access: by what the sites' ledgers say of each decision, and by the files of requests.

A clause is kept if every decision that concerns it was granted by a policy of the package, or refused by one of these, by a
site's own or by default, and if the line says what the clause is about; broken if one line does not, or says that something
was granted that the policies do not grant. Where nobody asked, it does not apply. Simulated decisions count too: their line
names every policy that decided. Lines are checked again here, not by the policies, so that an access endpoint with other rules
would show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.cedar_files import OWN, Policy
from fedprivseg.governance.access.endpoint import DECISION, NO_RECORD, UNKNOWN_PERSON
from fedprivseg.governance.access.requests import State, events_of, is_request
from fedprivseg.governance.access.roles import Title
from fedprivseg.governance.access.simulation import KEEPS, TRIAL
from fedprivseg.governance.access.staff import OPENED
from fedprivseg.governance.compliance.evidence import Evidence, SiteEvidence
from fedprivseg.governance.compliance.verdict import Verdict, broken, kept, not_applicable
from fedprivseg.governance.ledger.line import Line

DEFAULTS = frozenset({"access.no-permit", "access.fault", UNKNOWN_PERSON, NO_RECORD})
"""Rules that only refuse, and stand in no file."""

PERSONS = ("patient", "guardian", "child")
STAFF = tuple(title.value for title in Title)
_FIX = (
    "Find out who wrote the line; ask for records with `fedprivseg access ask` or `query`, which write it themselves."
)


@cache
def _shipped() -> Mapping[str, Policy]:
    return MappingProxyType({policy.id: policy for policy in CedarAuthorizer().policies})


def _judge(
    evidence: Evidence,
    why: str,
    lacks: Callable[[Line], str | None],
    *,
    of: Callable[[Line], bool] = lambda line: True,
    clause: str = "",
) -> Verdict:
    """The verdict on all decisions that concern one clause.

    Args:
        evidence: the run.
        why: a sentence for the report, if the clause is kept.
        lacks: what a line lacks or should not say, None if nothing.
        of: whether the clause is about a decision.
        clause: what the clauses of policies begin with whose use in a simulation counts, empty for all.
    """
    if unsound := [site.name for site in evidence.sites if site.fault]:
        said = f"The ledger of {', '.join(unsound)} does not verify, so what it says of access proves nothing."
        return broken(said, (), "Keep the files as evidence and compare them with a backup.")
    decisions = [(site, line) for site, line in _lines(evidence, DECISION) if of(line)]
    trials = [(site, line) for site, line in _lines(evidence, TRIAL) if _concerns(line, clause)]
    faults = [(site, line, fault) for site, line in decisions if (fault := _unfounded(line) or lacks(line))]
    faults += [(site, line, fault) for site, line in trials if (fault := _odd_trial(line))]
    faults += [(site, line, "has no decision") for site, line in _strange(evidence)]
    if faults:
        said = "; ".join(f"line {line.index} of {site.name} {fault}" for site, line, fault in faults[:3])
        return broken(f"{said}.", [site.at(line) for site, line, _ in faults], _FIX)
    where = [site.at(line) for site, line in (*decisions, *trials)]
    if not where:
        return not_applicable("Nobody asked for a record to whom this applies.")
    granted = sum(line.facts.get("decision") == "permit" for _, line in decisions)
    simulated = sum(int(str(line.facts.get("requests", 0))) for _, line in trials)
    counted = f"{len(decisions)} decisions, {granted} of them granted"
    counted += f", and {simulated} simulated" if simulated else ""
    return kept(f"{counted}; each names its policy. {why}", where)


def _lines(evidence: Evidence, what: str) -> Iterator[tuple[SiteEvidence, Line]]:
    for site in evidence.sites:
        yield from ((site, line) for line in site.lines if line.event == "access" and line.facts.get("what") == what)


def _strange(evidence: Evidence) -> Iterator[tuple[SiteEvidence, Line]]:
    """Lines of access that are no decision, no trial, no event of a request, and no opening by a role."""
    for site in evidence.sites:
        for line in site.lines:
            what = line.facts.get("what")
            by_role = what == OPENED and line.facts.get("role") == Title.DATA_MANAGER
            if line.event == "access" and what not in (DECISION, TRIAL) and not is_request(line) and not by_role:
                yield site, line


def _unfounded(line: Line) -> str | None:
    """Why a decision does not stand on a policy; None if it does."""
    decision, rule, clause = (str(line.facts.get(name, "")) for name in ("decision", "rule", "clause"))
    policy = _shipped().get(rule)
    if decision == "permit":
        if policy is None or policy.effect != "permit" or policy.clause != clause:
            return f"grants by {rule or 'no rule'}, which is no policy of the package that permits"
        beside = line.facts.get("policies")
        if not isinstance(beside, list) or any(_effect(each) != "permit" for each in beside):
            return "grants by policies that are not the package's"
        return None if line.facts.get("policy_set") else "does not say under which policies it grants"
    if decision != "deny":
        return "has no decision"
    if policy is not None:
        return (
            None
            if policy.effect == "forbid" and policy.clause == clause
            else f"refuses by {rule}, which does not forbid"
        )
    return None if rule in DEFAULTS or rule.startswith(OWN) else f"refuses by {rule or 'no rule'}, which is no policy"


def _effect(name: object) -> str:
    policy = _shipped().get(str(name))
    return "" if policy is None else policy.effect


def _named(line: Line) -> list[str]:
    rules = line.facts.get("rules", [])
    return [str(each).rpartition(": ")[0] for each in rules] if isinstance(rules, list) else []


def _concerns(line: Line, clause: str) -> bool:
    clauses = [_shipped()[name].clause for name in _named(line) if name in _shipped()]
    return not clause or any(each.startswith(clause) for each in clauses)


def _odd_trial(line: Line) -> str | None:
    counts = [line.facts.get(name) for name in ("permitted", "denied", "requests")]
    if not all(isinstance(count, int) for count in counts) or counts[0] + counts[1] != counts[2]:  # type: ignore[operator]
        return "is of a trial whose counts do not add up"
    unknown = [
        name for name in _named(line) if name not in _shipped() and name not in DEFAULTS and not name.startswith(OWN)
    ]
    return f"is of a trial with {', '.join(unknown)}, which is no policy" if unknown else None


def _granted(line: Line) -> bool:
    """Whether something that is not public was given out."""
    return line.facts.get("decision") == "permit" and line.facts.get("level") != 1


def _of(*roles: str) -> Callable[[Line], bool]:
    return lambda line: line.facts.get("role") in roles


def by_role_and_attribute(evidence: Evidence) -> Verdict:
    """Control of access by role and by attribute."""

    def lacks(line: Line) -> str | None:
        if not _granted(line):
            return None
        missing = [name for name in ("role", "level", "granularity", "purpose") if not line.facts.get(name)]
        return f"grants without saying {', '.join(missing)}" if missing else None

    why = "Role, attributes of the record and circumstances are checked each time; nothing is granted by default."
    return _judge(evidence, why, lacks)


def least_rights(evidence: Evidence) -> Verdict:
    """Rights by role, the least that are needed."""

    def lacks(line: Line) -> str | None:
        known = line.facts.get("role") in (*STAFF, *PERSONS)
        return "grants to somebody who is not known" if line.facts.get("decision") == "permit" and not known else None

    return _judge(evidence, "Who was not known, had not proved who it is or had no right was refused.", lacks)


def granularity_of_doctors(evidence: Evidence, clause: str, detail: Mapping[str, str]) -> Verdict:
    """Names of tests, reports and details are told apart. detail: what the clause of a policy grants."""

    def lacks(line: Line) -> str | None:
        wanted = detail.get(str(line.facts.get("clause")))
        other = _granted(line) and wanted not in (None, line.facts.get("granularity"))
        return "grants data of another detail than its clause" if other else None

    why = "Each distinguishes names of tests, reports and details."
    return _judge(evidence, why, lacks, of=_of(*STAFF), clause=clause)


def roles_of_doctors(evidence: Evidence, clause: str) -> Verdict:
    """Roles by department, title and treatment group."""

    def lacks(line: Line) -> str | None:
        return "grants without saying the department" if _granted(line) and not line.facts.get("department") else None

    why = "Each says title, department and treatment groups."
    return _judge(evidence, why, lacks, of=_of(*STAFF), clause=clause)


def charge_of_doctors(evidence: Evidence, clause: str) -> Verdict:
    """Doctors see patients in their charge; infectious diseases come with a notice."""

    def lacks(line: Line) -> str | None:
        rules = line.facts.get("policies", [])
        treats = str(line.facts["rule"]).startswith("treatment.")
        if _granted(line) and line.facts.get("level") not in (1, 2, 3) and not treats:
            return "grants data of a named patient to somebody who does not treat"
        unsaid = isinstance(rules, list) and "treatment.infectious" in rules and not line.facts.get("notices")
        return "discloses an infectious disease without the notice" if unsaid else None

    why = "Who does not treat a patient, and is above nobody who does, was refused what names the patient."
    return _judge(evidence, why, lacks, of=_of(*STAFF), clause=clause)


def own_queries(evidence: Evidence, clause: str) -> Verdict:
    """Patients' own queries: identity, and limits on what is shown."""

    def lacks(line: Line) -> str | None:
        too_much = line.facts.get("level") == 5 or line.facts.get("granularity") == "authorised"
        return "shows a person what is for staff" if _granted(line) and too_much else None

    why = "Identity, documents and authorisation were checked; sensitive and old findings were not shown."
    return _judge(evidence, why, lacks, of=_of(*PERSONS), clause=clause)


def own_copies(evidence: Evidence, clause: str) -> Verdict:
    """Rights to save, copy, print, download, with a notice."""

    def keeps(line: Line) -> bool:
        return line.facts.get("role") in PERSONS and line.facts.get("action") in KEEPS

    def lacks(line: Line) -> str | None:
        notified = line.facts.get("notified") is True and bool(line.facts.get("notices"))
        return "lets a copy go without the notice" if _granted(line) and not notified else None

    why = "Copies went only to who has the right, after the notice."
    return _judge(evidence, why, lacks, of=keeps, clause=clause)


def own_channel(evidence: Evidence, clause: str) -> Verdict:
    """What is sent to persons stays confidential and whole."""

    def lacks(line: Line) -> str | None:
        sealed = line.facts.get("encrypted") is True and line.facts.get("integrity") is True
        return "answers in plaintext" if line.facts.get("decision") == "permit" and not sealed else None

    why = "Nothing was answered over a channel of which the site did not attest encryption; the channel is a deployment's."
    return _judge(evidence, why, lacks, of=_of(*PERSONS), clause=clause)


def reviewed(evidence: Evidence) -> Verdict:
    """Every request and review is in a signed ledger, and what was used for studies had been approved."""
    where, faults = [], []
    for site in evidence.sites:
        told = [line for line in site.lines if is_request(line)]
        studies = [
            line for line in site.lines if line.facts.get("what") == DECISION and _granted(line) and _for_study(line)
        ]
        where += [site.at(line) for line in (*told, *studies)]
        try:
            events = events_of(told)
        except RequestError as fault:
            faults.append(f"{site.name}: {fault}")
            continue
        approved = {event.request for event in events if event.what == State.APPROVED}
        faults += [
            f"{site.name}: line {line.index} grants a study for which no request was approved."
            for line in studies
            if line.facts.get("project") not in approved
        ]
    if faults:
        return broken(" ".join(faults[:3]), where, "Find out who wrote the line, and what was used.")
    if not where:
        return not_applicable("Nobody asked for a review; studies need one and are refused without.")
    why = (
        "Each request states source, scenario, range, logic and effect; nobody reviewed their own; what was used for studies "
        "had been approved; and all of it stands in a ledger."
    )
    return kept(why, where)


def _for_study(line: Line) -> bool:
    return str(line.facts.get("rule", "")).startswith("research.")
