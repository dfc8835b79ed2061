"""The data-use agreement between a site and who runs the study, as a document that the gate can read (clause 5.3.2-a).

It states the parties by their public keys, what the data is for and for how long, what may leave, which protections hold, and
what is done if data leaks. Both parties sign the same bytes (Ed25519). Without it, or outside its term, nothing leaves.
"""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from fedprivseg.core.errors import RequestError
from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.model import Frozen
from fedprivseg.core.records import Decision
from fedprivseg.crypto.identity import SiteKey, canonical, verify
from fedprivseg.governance.policy.profile import Purpose

CLAUSE = "5.3.2-a"
PARTIES: tuple[Literal["site", "server"], ...] = ("site", "server")


class BreachPlan(Frozen):
    """What happens if data leaks. contact: a role or an office, no person. hours: within how many it is notified."""

    contact: str = Field(min_length=3)
    hours: int = Field(ge=1, le=720)
    steps: tuple[str, ...] = Field(min_length=1)


class Terms(Frozen):
    """What the parties, named and by their public keys (hex), agree on, from the first day `start` to the last day `end`."""

    site: str
    server: str
    site_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    server_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    study: str = Field(min_length=3, description="what the data is for, in a sentence")
    kinds: tuple[KindSpec, ...] = Field(min_length=1)
    purposes: tuple[Purpose, ...] = Field(min_length=1)
    start: date
    end: date
    protections: tuple[str, ...] = Field(description="measures that both parties keep up")
    duties: tuple[str, ...] = Field(description="what the server does at the end: return, destroy")
    breach: BreachPlan

    @model_validator(mode="after")
    def _some_days(self) -> Terms:
        if self.end < self.start:
            raise ValueError(f"the agreement ends on {self.end}, before it starts on {self.start}")
        return self

    def signed_bytes(self) -> bytes:
        """What both parties sign."""
        return canonical({"statement": "fedprivseg agreement 1", **self.model_dump(mode="json")})

    @property
    def digest(self) -> str:
        """SHA-256 of what both parties sign, by which a ledger line names the agreement under which something left."""
        return hashlib.sha256(self.signed_bytes()).hexdigest()


class Agreement(Frozen):
    """The terms with the signatures of both parties (hex), empty while one is missing."""

    terms: Terms
    site_signature: str = ""
    server_signature: str = ""

    def signed(self, party: Literal["site", "server"], key: SiteKey) -> Agreement:
        """The same with the signature of `party`. Raises RequestError if the terms name another key for it."""
        named = getattr(self.terms, f"{party}_key")
        if key.public_hex != named:
            raise RequestError(
                f"the agreement names another key as the {party}'s (it begins with {named[:8]}, this one with "
                f"{key.public_hex[:8]}); draw up the terms with the right keys"
            )
        return self.model_copy(update={f"{party}_signature": key.sign(self.terms.signed_bytes()).hex()})

    def lacks(self) -> tuple[str, ...]:
        """The parties whose signature is missing or is not theirs."""
        body = self.terms.signed_bytes()
        return tuple(
            party
            for party in PARTIES
            if not verify(getattr(self.terms, f"{party}_key"), body, _bytes(getattr(self, f"{party}_signature")))
        )


def read_agreement(path: Path) -> Agreement | None:
    """The agreement in a JSON file, None if there is none. Raises RequestError if there is one that cannot be read."""
    try:
        return Agreement.model_validate_json(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as fault:
        raise RequestError(
            f"the data-use agreement cannot be read ({type(fault).__name__}); ask the parties for it"
        ) from None


def objection(
    agreement: Agreement | None, *, site_key: str, server_key: str | None, kind: KindSpec, purpose: str, today: date
) -> Decision | None:
    """Why a payload of `kind` for `purpose` may not leave on `today` under `agreement`; None if it may.

    Args:
        site_key: the public key of the site.
        server_key: that of the server that the site knows; None if it knows none yet, and then any that signed will do.
    """
    if agreement is None:
        return _no("absent", "There is no data-use agreement at this site, and its policy asks for one.")
    terms = agreement.terms
    if terms.site_key != site_key or server_key not in (None, terms.server_key):
        return _no("parties", "The data-use agreement is between other parties than this site and this server.")
    if lacking := agreement.lacks():
        return _no("unsigned", f"The data-use agreement lacks a valid signature of: {', '.join(lacking)}.")
    if not terms.start <= today <= terms.end:
        return _no("term", f"The data-use agreement runs from {terms.start} to {terms.end}; it is {today}.")
    if kind not in terms.kinds:
        return _no(
            "kind", f"The data-use agreement does not cover '{kind}'; it covers: {', '.join(sorted(terms.kinds))}."
        )
    if purpose not in terms.purposes:
        return _no("purpose", f"The data-use agreement covers other purposes: {', '.join(sorted(terms.purposes))}.")
    return None


def _no(rule: str, reason: str) -> Decision:
    return Decision(False, f"agreement.{rule}", reason, CLAUSE)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
