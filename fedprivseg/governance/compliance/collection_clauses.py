"""Checks of the clauses on collection, classes and levels: by enrolments, releases and policies."""

from __future__ import annotations

from fedprivseg.governance.compliance.evidence import Evidence, is_raw, level_of
from fedprivseg.governance.compliance.verdict import Verdict, broken, kept, not_applicable, outside_software

_NOBODY = not_applicable("No site enrolled anybody.")
_AGAIN = "Run the scenario again into a new folder."


def purposeful(evidence: Evidence) -> Verdict:
    """Every enrolment states its purpose; nobody is enrolled beyond it."""
    why = "Each site's ledger states the purpose and number of those who were enrolled; other purposes are refused."
    return _stated(evidence, ("purpose",), why)


def recorded(evidence: Evidence) -> Verdict:
    """Every enrolment states channel, source, range and type."""
    why = "Each site's ledger states channel, source, range and type of what was enrolled."
    return _stated(evidence, ("channel", "source", "range", "type"), why)


def _stated(evidence: Evidence, facts: tuple[str, ...], why: str) -> Verdict:
    """Whether every site that let something out recorded an enrolment, and each enrolment these facts."""
    where = evidence.where("enrolment")
    if lacking := [site.name for site in evidence.sites if site.of("release") and not site.of("enrolment")]:
        return broken(f"{', '.join(lacking)} recorded no enrolment.", where, _AGAIN)
    if not where:
        return _NOBODY
    silent = [site.at(line) for site, line in evidence.lines("enrolment") if not all(map(line.facts.get, facts))]
    if silent:
        return broken(f"An enrolment does not state {', '.join(facts)}.", silent, _AGAIN)
    return kept(why, where)


def rules_stated(evidence: Evidence) -> Verdict:
    """Every site's policy can be read."""
    if without := evidence.without_policy:
        why = f"No policy that can be read at {', '.join(without)}; nothing left there."
        return broken(why, evidence.policies, "Write a policy.toml.")
    return kept("Each site's policy is on file and was read for every payload.", evidence.policies)


def consent(evidence: Evidence) -> Verdict:
    """Nobody without consent, and nothing left of who withdrew."""
    register = [site for site in evidence.sites if site.policy is not None and site.policy.consent == "register"]
    where = [site.at(line) for site in register for line in site.of("enrolment")]
    if evidence.left_traces:
        why = "; ".join(evidence.left_traces)
        return broken(why, where, "Execute the withdrawal again: fedprivseg withdraw.")
    # What a policy says now is not what it said then: the line of enrolment states on what basis people were enrolled.
    relying = [
        site.name
        for site in evidence.sites
        if site not in register or any(line.facts.get("basis") != "register" for line in site.of("enrolment"))
    ]
    if relying:
        names = ", ".join(relying)
        why = f"{names} rely on the licence under which the data was released; who released it asked for consent."
        return outside_software(why, where, 'Set consent = "register" in the site\'s policy to have it checked.')
    return kept("Only subjects whose consent covers the study were enrolled; withdrawal closes the gate.", where)


def chosen_types(evidence: Evidence) -> Verdict:
    """The enrolments state one type of data."""
    lines = [(site, line) for site, line in evidence.lines("enrolment") if line.facts.get("type")]
    if not lines:
        return _NOBODY
    types = ", ".join(sorted({str(line.facts["type"]) for _, line in lines}))
    why = f"Of type {types} alone, and of each subject the labelled frames."
    return kept(why, [site.at(line) for site, line in lines])


def no_identity(evidence: Evidence) -> Verdict:
    """No raw data left."""
    if raw := [site.at(line) for site, line in evidence.lines("release") if is_raw(line)]:
        return broken("Raw images left a site.", raw, "Choose a method that does not export raw data.")
    why = "No raw image or mask left a site; an error leaves as its type and an id. What codes tell is measured by attacks."
    return kept(why, evidence.where("release")[:2])


def classified(evidence: Evidence) -> Verdict:
    """Each type of data has a class in Table 1."""
    where = evidence.where("enrolment")
    classes = sorted({str(line.facts.get("class", "unknown")) for _, line in evidence.lines("enrolment")})
    if not where:
        return _NOBODY
    if "unknown" in classes:
        return broken("A type of data has no class in Table 1.", where, "Name a type of Table 1 in study.data.")
    return kept(f"Class: {', '.join(classes)}.", where)


def levels(evidence: Evidence) -> Verdict:
    """What left has a level, within the site's policy."""
    released = evidence.lines("release")
    if not released:
        return not_applicable("Nothing was sent.")
    above = [
        site.at(line)
        for site, line in released
        if not is_raw(line) and (site.policy is None or level_of(line) > site.policy.max_level)
    ]
    if above:
        why = "Payloads left above the level that the site's policy allows."
        return broken(why, above, "Find out who changed the policy, and when.")
    highest = max(level_of(line) for _, line in released)
    why = f"Levels are assigned by rule; the highest that left is {highest}, within each policy."
    return kept(why, evidence.where("release")[:2])
