"""How one clause is judged: a state, why, on what evidence, and what would fix it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

State = Literal["kept", "broken", "not applicable", "outside software"]


class Verdict(NamedTuple):
    """What a check says of its clause.

    Attributes:
        state: ``outside software`` is what only people can do or attest.
        why: in sentences.
        evidence: where to look: ledger lines as ``site:index``, and files of the run.
        fix: what would help, for a clause that is broken.
    """

    state: State
    why: str
    evidence: Sequence[str] = ()
    fix: str = ""


def kept(why: str, evidence: Sequence[str]) -> Verdict:
    """Code prevented the breach, or a signed record proves the act."""
    return Verdict("kept", why, evidence)


def broken(why: str, evidence: Sequence[str], fix: str) -> Verdict:
    """The evidence shows a breach, or lacks what the clause asks for."""
    return Verdict("broken", why, evidence, fix)


def not_applicable(why: str) -> Verdict:
    """Nothing happened that the clause is about."""
    return Verdict("not applicable", why)


def outside_software(why: str, evidence: Sequence[str], fix: str = "") -> Verdict:
    """Only people can do or attest it."""
    return Verdict("outside software", why, evidence, fix)
