"""How the clauses on collection, classes and levels (5.1, 5.5) are judged: by intakes, releases and policies."""

from __future__ import annotations

from fedprivseg.governance.compliance.evidence import Evidence, Verdict, at, is_raw
from fedprivseg.governance.ledger.ledger import Line
from fedprivseg.governance.sitefolder.vault import POLICY


def purposeful(evidence: Evidence) -> Verdict:
    """5.1.1: every intake states its purpose; nobody is taken in beyond it."""
    why = "Each site's ledger states the purpose and number of what was taken in; other purposes are refused."
    return _stated(evidence, ("purpose",), why)


def recorded(evidence: Evidence) -> Verdict:
    """5.1.2-d: every intake states channel, source, range and type."""
    why = "Each site's ledger states channel, source, range and type of what was taken in."
    return _stated(evidence, ("channel", "source", "range", "type"), why)


def _stated(evidence: Evidence, facts: tuple[str, ...], why: str) -> Verdict:
    """Whether every site that let something out recorded an intake, and each intake these facts."""
    where = [at(site, line) for site, line in evidence.lines("intake")]
    if lacking := [site.name for site in evidence.sites if site.of("release") and not site.of("intake")]:
        return "broken", f"{', '.join(lacking)} recorded no intake.", where, "Run the scenario anew into a new folder."
    if not where:
        return "not applicable", "No site took anybody in.", [], ""
    silent = [at(site, line) for site, line in evidence.lines("intake") if not all(map(line.facts.get, facts))]
    if silent:
        return (
            "broken",
            f"An intake does not state {', '.join(facts)}.",
            silent,
            "Run the scenario anew into a new folder.",
        )
    return "kept", why, where, ""


def rules_stated(evidence: Evidence) -> Verdict:
    """5.1.2-a: every site's policy can be read."""
    without = [site.name for site in evidence.sites if site.policy is None]
    where = [f"sites/{site.name}/{POLICY}" for site in evidence.sites if site.policy is not None]
    if without:
        return (
            "broken",
            f"No policy that can be read at {', '.join(without)}; nothing left there.",
            where,
            f"Write a {POLICY}.",
        )
    return "kept", "Each site's policy is on file and was read for every payload.", where, ""


def consent(evidence: Evidence) -> Verdict:
    """5.1.2-b: nobody without consent, and nothing left of who withdrew."""
    register = [site for site in evidence.sites if site.policy is not None and site.policy.consent == "register"]
    where = [at(site, line) for site in register for line in site.of("intake")]
    # What a policy says now is not what it said then: the intake's line tells on what basis people were taken in.
    relying = [
        site.name
        for site in evidence.sites
        if site not in register or any(line.facts.get("basis") != "register" for line in site.of("intake"))
    ]
    if evidence.left_traces:
        return "broken", "; ".join(evidence.left_traces), where, "Carry the withdrawal out again: fedprivseg withdraw."
    if relying:
        names = ", ".join(relying)
        why = (
            f"{names} rely on the licence under which the data was released; consent was asked by whoever released it."
        )
        return "outside software", why, where, 'Set consent = "register" in the site\'s policy to have it checked.'
    return "kept", "Only subjects whose consent covers the study were taken in; withdrawal closes the gate.", where, ""


def chosen_types(evidence: Evidence) -> Verdict:
    """5.1.2-c: the intakes state one type of data."""
    where = [at(site, line) for site, line in evidence.lines("intake") if line.facts.get("type")]
    if not where:
        return "not applicable", "No site took anybody in.", [], ""
    types = sorted({str(line.facts["type"]) for _, line in evidence.lines("intake")})
    return "kept", f"Of type {', '.join(types)} alone, and of each subject the labelled frames.", where, ""


def no_identity(evidence: Evidence) -> Verdict:
    """5.1.2-e: no raw data left."""
    if evidence.released_raw:
        return (
            "broken",
            "Raw images left a site.",
            evidence.released_raw,
            "Choose a method that does not export raw data.",
        )
    where = [at(site, line) for site, line in evidence.lines("release")]
    why = "No raw image or mask left a site; an error leaves as its type and an id. What codes tell is measured by attacks."
    return "kept", why, where[:2], ""


def classified(evidence: Evidence) -> Verdict:
    """5.1.3: each type of data has a class in Table 1."""
    where = [at(site, line) for site, line in evidence.lines("intake")]
    classes = sorted({str(line.facts.get("class", "unknown")) for _, line in evidence.lines("intake")})
    if not where:
        return "not applicable", "No site took anybody in.", [], ""
    if "unknown" in classes:
        return "broken", "A type of data has no class in Table 1.", where, "Name a type of Table 1 in study.data."
    return "kept", f"Class: {', '.join(classes)}.", where, ""


def levels(evidence: Evidence) -> Verdict:
    """5.5: what left has a level, within the site's policy."""
    released = evidence.lines("release")
    if not released:
        return "not applicable", "Nothing was sent.", [], ""
    above = [
        at(site, line)
        for site, line in released
        if not is_raw(line) and (site.policy is None or _level(line) > site.policy.max_level)
    ]
    if above:
        why = "Payloads left above the level that the site's policy lets out."
        return "broken", why, above, "Find out who changed the policy, and when."
    highest = max(_level(line) for _, line in released)
    why = f"Levels are assigned by rule; the highest that left is {highest}, within each policy."
    return "kept", why, [at(site, line) for site, line in released][:2], ""


def _level(line: Line) -> int:
    return int(str(line.facts.get("level", 0)))
