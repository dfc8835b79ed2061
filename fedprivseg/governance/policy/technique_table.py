"""Which technique of de-identification suits which data: Table 2 of T/SCGS 313008-2024, clause 5.2, as data.

The table weighs two things. Utility: de-identified data of both grades still meets the needs of its use; it is high where
distortion is low, and low where distortion is high. Confidentiality: low where a leak can do no actual harm to a person's
privacy or dignity, high where the consequences of a leak count as serious or very serious. What lies between the two is
not in the table; whoever grades such data should grade it high.

The table recommends ('宜使用', advisable, and '不宜使用', inadvisable); it neither commands nor forbids, and its note leaves
particular kinds of data to judgement. A technique that a cell does not name is therefore open, not refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from fedprivseg.core.errors import RequestError

CLAUSE = "5.2"

Member = TypeVar("Member", bound=StrEnum)


class Technique(StrEnum):
    """The techniques of Table 2. The values stand in history lines and in reports."""

    GENERALISATION = "generalisation"
    RANDOM_PERTURBATION = "random perturbation"
    REARRANGEMENT = "rearrangement"
    PERMUTATION = "permutation"
    MASKING = "masking"
    SUBSTITUTION = "substitution"
    NUMERIC_TRANSFORM = "numeric transform"
    NULL_INSERTION = "null insertion"
    TRUNCATION = "truncation"
    STATISTICS = "statistics"
    RANDOMISATION = "randomisation"
    OCCLUSION = "occlusion"
    DATA_TRANSFORMATION = "data transformation"
    SYMMETRIC_ENCRYPTION = "symmetric encryption"
    HOMOMORPHIC_ENCRYPTION = "homomorphic encryption"


class Grade(StrEnum):
    """Either axis of Table 2 has these two grades."""

    HIGH = "high"
    LOW = "low"


class Verdict(StrEnum):
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
    """One cell of Table 2: the techniques that it advises and those that it advises against."""

    advised: frozenset[Technique]
    unadvised: frozenset[Technique]


@dataclass(frozen=True)
class Advice:
    """What the standard says of one technique for data of one grade: a `verdict`, the `clause`, a readable `sentence`."""

    verdict: Verdict
    clause: str
    sentence: str


TABLE_2: Mapping[tuple[Grade, Grade], Cell] = MappingProxyType(
    {
        (Grade.HIGH, Grade.HIGH): Cell(
            advised=frozenset({Technique.HOMOMORPHIC_ENCRYPTION}),
            unadvised=frozenset({Technique.OCCLUSION, Technique.SUBSTITUTION}),
        ),
        (Grade.HIGH, Grade.LOW): Cell(
            advised=frozenset(
                {
                    Technique.GENERALISATION,
                    Technique.RANDOM_PERTURBATION,
                    Technique.REARRANGEMENT,
                    Technique.PERMUTATION,
                    Technique.MASKING,
                    Technique.SUBSTITUTION,
                }
            ),
            unadvised=frozenset({Technique.NUMERIC_TRANSFORM, Technique.NULL_INSERTION}),
        ),
        (Grade.LOW, Grade.HIGH): Cell(
            advised=frozenset(
                {
                    Technique.SYMMETRIC_ENCRYPTION,
                    Technique.SUBSTITUTION,
                    Technique.NULL_INSERTION,
                    Technique.DATA_TRANSFORMATION,
                }
            ),
            unadvised=frozenset({Technique.OCCLUSION}),
        ),
        (Grade.LOW, Grade.LOW): Cell(
            advised=frozenset(
                {
                    Technique.STATISTICS,
                    Technique.RANDOMISATION,
                    Technique.GENERALISATION,
                    Technique.TRUNCATION,
                    Technique.NULL_INSERTION,
                    Technique.OCCLUSION,
                }
            ),
            # The table says 'encryption' here without a kind, so both kinds are meant.
            unadvised=frozenset({Technique.SYMMETRIC_ENCRYPTION, Technique.HOMOMORPHIC_ENCRYPTION}),
        ),
    }
)
"""(utility, confidentiality) -> cell."""

CHINESE: Mapping[Technique, str] = MappingProxyType(
    {
        Technique.GENERALISATION: "泛化技术",
        Technique.RANDOM_PERTURBATION: "随机干扰",
        Technique.REARRANGEMENT: "重排",
        Technique.PERMUTATION: "置换",
        Technique.MASKING: "屏蔽",
        Technique.SUBSTITUTION: "替代",
        Technique.NUMERIC_TRANSFORM: "数值变换",
        Technique.NULL_INSERTION: "空值插入",
        Technique.TRUNCATION: "数据截断",
        Technique.STATISTICS: "统计技术",
        Technique.RANDOMISATION: "随机化技术",
        Technique.OCCLUSION: "遮挡",
        Technique.DATA_TRANSFORMATION: "数据变换",
        Technique.SYMMETRIC_ENCRYPTION: "对称加密算法",
        Technique.HOMOMORPHIC_ENCRYPTION: "同态加密",
    }
)
"""The words of the standard itself, for whoever compares a report with it."""


def advice(technique: Technique, utility: Grade, confidentiality: Grade) -> Advice:
    """What Table 2 says of `technique` for data of this `utility` and `confidentiality`.

    Raises RequestError for a technique or a grade that the clause does not have; names such as ``"masking"`` and
    ``"high"`` are taken as well.
    """
    technique = _member(Technique, technique, "technique")
    utility = _member(Grade, utility, "grade of utility")
    confidentiality = _member(Grade, confidentiality, "grade of confidentiality")
    cell = TABLE_2[utility, confidentiality]
    data = f"data of {utility} utility and {confidentiality} confidentiality"
    if technique in cell.advised:
        return Advice(Verdict.RECOMMENDED, CLAUSE, f"Clause {CLAUSE} advises {technique} for {data}.")
    instead = ", ".join(sorted(cell.advised))
    if technique in cell.unadvised:
        sentence = f"Clause {CLAUSE} advises against {technique} for {data}; it advises {instead}."
        return Advice(Verdict.NOT_RECOMMENDED, CLAUSE, sentence)
    sentence = f"Clause {CLAUSE} leaves {technique} open for {data}; it advises {instead}."
    return Advice(Verdict.OPEN, CLAUSE, sentence)


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
