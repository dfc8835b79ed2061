"""A site's register of consent, and who may be enrolled in a study (T/SCGS 313008-2024 clauses 5.1.1, 5.1.2-b to d).

The register is a CSV file of the site, one line a subject. Purposes are terms of the Data Use Ontology (DUO, GA4GH; Lawson et
al., Cell Genomics 1:100028, 2021). A subject without a line, with a line that cannot be read, or whose line does not cover the
study is not enrolled: consent is never assumed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.records import Decision, digest

CLAUSE = "5.1.2-b"


class Duo(StrEnum):
    """The terms that are understood. Permissions first, then limits on who or what for."""

    NO_RESTRICTION = "DUO:0000004"
    GENERAL_RESEARCH = "DUO:0000042"
    HEALTH_RESEARCH = "DUO:0000006"
    DISEASE_RESEARCH = "DUO:0000007"
    NO_COMMERCE = "DUO:0000046"
    ETHICS_APPROVAL = "DUO:0000021"
    TIME_LIMIT = "DUO:0000025"


IN_WORDS: Mapping[Duo, str] = MappingProxyType(
    {
        Duo.NO_RESTRICTION: "any use",
        Duo.GENERAL_RESEARCH: "general research",
        Duo.HEALTH_RESEARCH: "health, medical and biomedical research",
        Duo.DISEASE_RESEARCH: "research on named diseases",
        Duo.NO_COMMERCE: "no commercial use",
        Duo.ETHICS_APPROVAL: "only with an ethics approval",
        Duo.TIME_LIMIT: "only until the end of its validity",
    }
)

_COVERS: Mapping[Duo, frozenset[Duo]] = MappingProxyType(
    {
        Duo.NO_RESTRICTION: frozenset({Duo.GENERAL_RESEARCH, Duo.HEALTH_RESEARCH, Duo.DISEASE_RESEARCH}),
        Duo.GENERAL_RESEARCH: frozenset({Duo.GENERAL_RESEARCH, Duo.HEALTH_RESEARCH, Duo.DISEASE_RESEARCH}),
        Duo.HEALTH_RESEARCH: frozenset({Duo.HEALTH_RESEARCH, Duo.DISEASE_RESEARCH}),
        Duo.DISEASE_RESEARCH: frozenset({Duo.DISEASE_RESEARCH}),
    }
)
"""What a study may be for under each permission: the wider one covers the narrower (DUO, 'data use permission')."""

StudyPurpose = Literal["DUO:0000042", "DUO:0000006", "DUO:0000007"]


@dataclass(frozen=True)
class Use:
    """What a study wants.

    Attributes:
        purpose: a permission term.
        diseases: for research on diseases, which.
        data: the type of data.
        commercial: whether for profit.
        ethics: the reference of an ethics approval, empty if there is none.
    """

    purpose: Duo
    diseases: frozenset[str]
    data: str
    commercial: bool = False
    ethics: str = ""


@dataclass(frozen=True)
class Consent:
    """One subject's line.

    Attributes:
        range: types of data that it covers.
        sharing: whether what is made of the data may leave the site.
        valid_from, valid_until: first and last day, the latter None for no end.
        withdrawn: the day of withdrawal, None if it was not withdrawn.
        channel, source: how and where the data was collected (5.1.2-d).
    """

    subject: str
    purposes: frozenset[Duo]
    diseases: frozenset[str]
    range: frozenset[str]
    sharing: bool
    valid_from: date
    valid_until: date | None
    withdrawn: date | None
    channel: str
    source: str

    def covers(self, use: Use, today: date) -> Decision:
        """Whether the subject's data may be used for `use` on `today`, by which rule, and why; no name in the reason."""
        for rule, objection in (
            ("consent.withdrawn", self._withdrawn(today)),
            ("consent.term", self._term(today)),
            ("consent.sharing", None if self.sharing else "The subject has not agreed that anything be shared."),
            ("consent.data-type", self._range(use)),
            ("consent.purpose", self._purpose(use)),
        ):
            if objection is not None:
                return Decision(False, rule, objection, CLAUSE)
        return Decision(True, "consent.covers", "The subject's consent covers the study.", CLAUSE)

    def withdrawal(self, today: date) -> Decision | None:
        """Why the subject's data may be used for nothing on `today`, whatever consent was asked for; None if it was not
        withdrawn."""
        reason = self._withdrawn(today)
        return None if reason is None else Decision(False, "consent.withdrawn", reason, CLAUSE)

    def _withdrawn(self, today: date) -> str | None:
        if self.withdrawn is None or today < self.withdrawn:
            return None
        return f"The subject withdrew consent on {self.withdrawn}."

    def _term(self, today: date) -> str | None:
        if today < self.valid_from:
            return f"The consent is valid from {self.valid_from}; it is {today}."
        if self.valid_until is not None and today > self.valid_until:
            return f"The consent was valid until {self.valid_until}; it is {today}."
        if Duo.TIME_LIMIT in self.purposes and self.valid_until is None:
            return "The consent names a limit of time, and the register does not say which."
        return None

    def _range(self, use: Use) -> str | None:
        if use.data in self.range:
            return None
        return f"The consent covers {_list(self.range)}, and the study wants {use.data}."

    def _purpose(self, use: Use) -> str | None:
        if Duo.NO_COMMERCE in self.purposes and use.commercial:
            return "The consent excludes commercial use, and the study is commercial."
        if Duo.ETHICS_APPROVAL in self.purposes and not use.ethics:
            return "The consent asks for an ethics approval, and the study names none."
        granted = self.purposes & frozenset(_COVERS)
        wide = granted - {Duo.DISEASE_RESEARCH}
        if any(use.purpose in _COVERS[term] for term in wide):
            return None
        if Duo.DISEASE_RESEARCH in granted and use.purpose == Duo.DISEASE_RESEARCH:
            if use.diseases and use.diseases <= self.diseases:
                return None
            return f"The consent is for research on {_list(self.diseases)}, and the study is on {_list(use.diseases)}."
        said = "; ".join(IN_WORDS[term] for term in sorted(granted)) or "no purpose"
        return f"The consent is for {said}, and the study is {IN_WORDS[use.purpose]}."


@dataclass(frozen=True)
class Register:
    """All lines of a site by subject, and the SHA-256 of the file: whoever acted on it can say on which state."""

    consents: Mapping[str, Consent]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Register:
        """The register in a CSV file. Raises RequestError if it is absent or any line of it cannot be read: a line that cannot
        be read may be a withdrawal."""
        try:
            raw = path.read_bytes()
            table = csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""), strict=True)
            rows = list(table)
        except FileNotFoundError:
            raise RequestError(
                f"there is no register of consent ({path.name}) at this site; without one nobody is enrolled"
            ) from None
        except (OSError, UnicodeDecodeError, csv.Error) as fault:
            raise RequestError(
                f"the register of consent cannot be read ({type(fault).__name__}); nobody is enrolled"
            ) from None
        columns = sorted(each.name for each in fields(Consent))
        if sorted(table.fieldnames or ()) != columns:  # a file without a line has to say what it is, too
            raise RequestError(f"line 1 of the register of consent has not just the columns {', '.join(columns)}")
        found: dict[str, Consent] = {}
        for number, row in enumerate(rows, start=2):
            consent = _consent(row, number)
            if consent.subject in found:
                raise RequestError(f"line {number} of the register of consent names a subject for the second time")
            found[consent.subject] = consent
        return cls(MappingProxyType(found), digest(raw))

    def decide(self, subject: str, use: Use, today: date) -> Decision:
        """Whether `subject` may be enrolled in the study."""
        consent = self.consents.get(subject)
        if consent is None:
            return Decision(False, "consent.absent", "The register holds no consent of the subject.", CLAUSE)
        return consent.covers(use, today)


def write_register(path: Path, consents: Iterable[Consent]) -> None:
    """Write a register that `Register.read` reads, in one step."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([each.name for each in fields(Consent)])
    for consent in sorted(consents, key=lambda each: each.subject):
        writer.writerow([_text(getattr(consent, each.name)) for each in fields(Consent)])
    write_text(path, text.getvalue())


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "agreed" if value else "refused"
    return ";".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def _consent(row: Mapping[str | None, str | None], number: int) -> Consent:
    """A line. Raises RequestError that names the column, never what stands in it."""
    names = {each.name for each in fields(Consent)}
    if set(row) != names or None in row.values():
        raise RequestError(
            f"line {number} of the register of consent has not just the columns {', '.join(sorted(names))}"
        )
    read: dict[str, Any] = {}
    for place, (parse, allowed) in _COLUMNS.items():
        try:
            read[place] = parse(str(row[place]))
        except (ValueError, KeyError):
            raise RequestError(
                f"line {number} of the register of consent has something else in {place!r} than {allowed}"
            ) from None
    return Consent(**read)


def _terms(text: str) -> frozenset[str]:
    return frozenset(term.strip() for term in text.split(";") if term.strip())


def _code(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _day(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


_COLUMNS: Mapping[str, tuple[Callable[[str], Any], str]] = MappingProxyType(
    {
        "purposes": (lambda text: frozenset(map(Duo, _terms(text))), f"terms of {', '.join(Duo)}, separated by ';'"),
        "sharing": (lambda text: {"agreed": True, "refused": False}[text], "'agreed' or 'refused'"),
        "valid_from": (date.fromisoformat, "a day as YYYY-MM-DD"),
        "valid_until": (_day, "a day as YYYY-MM-DD, or nothing"),
        "withdrawn": (_day, "a day as YYYY-MM-DD, or nothing"),
        "subject": (_code, "a subject's code"),
        "diseases": (_terms, "names"),
        "range": (_terms, "names"),
        "channel": (str, "text"),
        "source": (str, "text"),
    }
)
"""How each column is read, and what it may hold."""


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
