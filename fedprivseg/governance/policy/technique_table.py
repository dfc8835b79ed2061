"""Which technique of de-identification suits which data: Table 2 of T/SCGS 313008-2024, clause 5.2, as data.

The table weighs two things. Utility: de-identified data of both grades still meets the needs of its use; it is high where
distortion is low, and low where distortion is high. Confidentiality: low where a leak can do no actual harm to a person's
privacy or dignity, high where the consequences of a leak count as serious or very serious. What lies between the two is
not in the table; whoever grades such data should grade it high.

The table recommends ('宜使用') and recommends against ('不宜使用'); it neither commands nor forbids, and its note leaves
particular kinds of data to judgement. A technique that a cell does not name is therefore open, not refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from fedprivseg.core.errors import RequestError
from fedprivseg.core.techniques import Technique

CLAUSE = "5.2"

Member = TypeVar("Member", bound=StrEnum)


class Grade(StrEnum):
    """Either axis of Table 2 has these two grades."""

    HIGH = "high"
    LOW = "low"


class Recommendation(StrEnum):
    """What a cell of Table 2 says of a technique; open where it does not name it."""

    RECOMMENDED = "recommended"
    NOT_RECOMMENDED = "not recommended"
    OPEN = "open"


class Cipher(StrEnum):
    """The symmetric ciphers that exist here, all of them authenticated."""

    AES_256_GCM = "AES-256-GCM"
    SM4_GCM = "SM4-GCM"


@dataclass(frozen=True)
class Cell:
    """One cell of Table 2: the techniques that it recommends and those that it recommends against."""

    recommended: frozenset[Technique]
    not_recommended: frozenset[Technique]


@dataclass(frozen=True)
class Advice:
    """What the standard says of one technique for data of one grade: a `verdict`, the `clause`, a readable `sentence`."""

    verdict: Recommendation
    clause: str
    sentence: str


def _cell(recommended: str, against: str) -> Cell:
    return Cell(*(frozenset(Technique(name) for name in half.split(", ")) for half in (recommended, against)))


TABLE_2: Mapping[tuple[Grade, Grade], Cell] = MappingProxyType(
    {
        (Grade.HIGH, Grade.HIGH): _cell("homomorphic encryption", against="occlusion, substitution"),
        (Grade.HIGH, Grade.LOW): _cell(
            "generalisation, random perturbation, rearrangement, permutation, masking, substitution",
            against="numeric transform, null insertion",
        ),
        (Grade.LOW, Grade.HIGH): _cell(
            "symmetric encryption, substitution, null insertion, data transformation", against="occlusion"
        ),
        (Grade.LOW, Grade.LOW): _cell(
            "statistics, randomisation, generalisation, truncation, null insertion, occlusion",
            # The table says 'encryption' here without a kind, so both kinds are meant.
            against="symmetric encryption, homomorphic encryption",
        ),
    }
)
"""(utility, confidentiality) -> cell."""


def advice(technique: Technique, utility: Grade, confidentiality: Grade) -> Advice:
    """What Table 2 says of `technique` for data of this `utility` and `confidentiality`.

    Raises RequestError for a technique or a grade that the clause does not have; names such as ``"masking"`` and
    ``"high"`` are read as well.
    """
    technique = _member(Technique, technique, "technique")
    utility = _member(Grade, utility, "grade of utility")
    confidentiality = _member(Grade, confidentiality, "grade of confidentiality")
    cell = TABLE_2[utility, confidentiality]
    data = f"data of {utility} utility and {confidentiality} confidentiality"
    instead = f"it recommends {', '.join(sorted(cell.recommended))}"
    if technique in cell.recommended:
        return Advice(Recommendation.RECOMMENDED, CLAUSE, f"Clause {CLAUSE} recommends {technique} for {data}.")
    if technique in cell.not_recommended:
        sentence = f"Clause {CLAUSE} recommends against {technique} for {data}; {instead}."
        return Advice(Recommendation.NOT_RECOMMENDED, CLAUSE, sentence)
    return Advice(Recommendation.OPEN, CLAUSE, f"Clause {CLAUSE} leaves {technique} open for {data}; {instead}.")


def cipher(name: str) -> Cipher:
    """The cipher that `name` asks for: one of `Cipher`, or ``AES`` or ``SM4`` as the table has them; letter case is free.

    Raises RequestError for SM1, which the table names too but whose algorithm was never published, and for any other.
    """
    exist = " and ".join(Cipher)
    wanted = name.strip().upper()
    if wanted == "SM1" or wanted.startswith("SM1-"):
        raise RequestError(
            f"SM1 stands in Table 2 of clause {CLAUSE}, but its algorithm is not published: it exists in certified chips "
            f"alone and no software can offer it. What exists here is {exist}; choose one of them."
        )
    short = {"AES": Cipher.AES_256_GCM, "SM4": Cipher.SM4_GCM}
    if wanted in short:
        return short[wanted]
    try:
        return Cipher(wanted)
    except ValueError:
        raise RequestError(
            f"{name[:40]!r} is no cipher that exists here; what exists is {exist}. Choose one of them."
        ) from None


def _member(kind: type[Member], value: str, what: str) -> Member:
    try:
        return kind(value)
    except ValueError:
        raise RequestError(
            f"{str(value)[:40]!r} is no {what} of clause {CLAUSE}; there are: {', '.join(sorted(kind))}. Choose one of them."
        ) from None
