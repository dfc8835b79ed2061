"""How a site grades what leaves it, and what Table 2 of clause 5.2 then says of the techniques that it leaves under.

A hospital weighs utility against confidentiality for each kind of payload, in its ``policy.toml``::

    [[strategy]]
    of = ["image-code", "mask-code"]
    utility = "low"             # a code is a distorted image that still serves its use
    confidentiality = "high"    # a leak of it may have serious effects
    unadvised = "refuse"        # or "note": it may leave, and the report says that the table recommends against it

Each technique is judged by itself. One that the table recommends against makes the payload not recommended, whatever other
techniques it is under; so does no technique at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.model import Frozen
from fedprivseg.governance.policy.technique_table import CLAUSE, Grade, Recommendation, Technique, advice


class Grading(Frozen):
    """The place of kinds of payload in Table 2. unadvised: what happens to a payload that the table does not recommend."""

    of: tuple[KindSpec, ...] = Field(min_length=1)
    utility: Grade
    confidentiality: Grade
    unadvised: Literal["refuse", "note"] = "note"

    def in_words(self) -> str:
        """Such as ``image-code of low utility and high confidentiality, refused if not recommended``."""
        then = "refused" if self.unadvised == "refuse" else "noted"
        grades = f"{self.utility} utility and {self.confidentiality} confidentiality"
        return f"{', '.join(self.of)} of {grades}, {then} if not recommended"


@dataclass(frozen=True)
class Judged:
    """What the table says of payloads of a `kind` that leave under `techniques`, for one grading; `sentence` is for a
    person."""

    kind: KindSpec
    grading: Grading
    techniques: tuple[Technique, ...]
    verdict: Recommendation
    sentence: str

    @property
    def refused(self) -> bool:
        """Whether the payload may not leave."""
        return self.verdict == Recommendation.NOT_RECOMMENDED and self.grading.unadvised == "refuse"


def judge(gradings: Iterable[Grading], kind: KindSpec, techniques: tuple[Technique, ...]) -> tuple[Judged, ...]:
    """What each of `gradings` that is about `kind` says of it under `techniques`."""
    return tuple(_judged(kind, grading, techniques) for grading in gradings if kind in grading.of)


def _judged(kind: KindSpec, grading: Grading, techniques: tuple[Technique, ...]) -> Judged:
    if not techniques:
        sentence = f"A payload of kind '{kind}' leaves under no technique of clause {CLAUSE}."
        return Judged(kind, grading, (), Recommendation.NOT_RECOMMENDED, sentence)
    found = [advice(technique, grading.utility, grading.confidentiality) for technique in techniques]
    by_verdict = {each.verdict: each for each in reversed(found)}
    # In this order: one technique that is not recommended outweighs all others.
    decisive = next(
        by_verdict[v]
        for v in (Recommendation.NOT_RECOMMENDED, Recommendation.RECOMMENDED, Recommendation.OPEN)
        if v in by_verdict
    )
    return Judged(kind, grading, techniques, decisive.verdict, decisive.sentence)
