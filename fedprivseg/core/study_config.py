"""What a scenario says of its study: purpose, consents, agreement, and what the parties do if data leaks."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from fedprivseg.core.kinds import KindSpec
from fedprivseg.core.model import Frozen
from fedprivseg.core.validation import Name


class BreachConfig(Frozen):
    """What the parties agree to do if data leaks."""

    contact: str = "data protection office of the site"
    hours: int = Field(default=24, ge=1, le=720)
    steps: tuple[str, ...] = (
        "stop the study",
        "tell the contact of every site",
        "list from the ledgers what was released",
    )


class AgreementConfig(Frozen):
    """A data-use agreement that the simulated parties draw up and sign before the run. ``kinds``: what may leave; empty: what
    the method declares."""

    start: date
    end: date
    kinds: tuple[KindSpec, ...] = ()
    protections: tuple[str, ...] = ("signed payloads", "encrypted transport", "codes are kept at the server alone")
    duties: tuple[str, ...] = ("destroy codes and models at the end of the term",)
    breach: BreachConfig = BreachConfig()


class ConsentConfig(Frozen):
    """The registers of consent of simulated hospitals. Every subject consents to ``purposes`` (DUO terms), except that at each
    site the first so many by code refuse to share (``refused``) or withdrew before the study (``withdrawn``), by site name.
    ``withdraws``: a site, and the order at which the first subject enrolled there withdraws, such as ``send_mask_codes``."""

    purposes: tuple[str, ...] = ("DUO:0000006",)
    start: date = date(2020, 1, 1)
    end: date | None = None
    refused: dict[Name, int] = Field(default_factory=dict)
    withdrawn: dict[Name, int] = Field(default_factory=dict)
    withdraws: dict[Name, str] = Field(default_factory=dict)


class StudyConfig(Frozen):
    """What the study is for, which consents are held against, and the simulated day on which it takes place (None: today).

    ``purpose``: a permission term of the Data Use Ontology. ``data``: the type of the data in the words of Table 1 (clause
    5.1.3); empty: the task's modality. ``ethics``: the reference of an ethics approval. ``intake``: the
    day on which the sites took their subjects in, from which retention terms count (None: the day of the study).
    """

    purpose: Literal["DUO:0000042", "DUO:0000006", "DUO:0000007"] = "DUO:0000006"
    diseases: tuple[str, ...] = ()
    data: str = ""
    commercial: bool = False
    ethics: str = ""
    today: date | None = None
    intake: date | None = None
    agreement: AgreementConfig | None = None
    consent: ConsentConfig | None = None

    @model_validator(mode="after")
    def _in_order(self) -> StudyConfig:
        if self.intake is not None and self.intake > (self.today or date.today()):
            raise ValueError(
                f"intake is {self.intake}, after the day of the study; subjects are enrolled before or on it"
            )
        return self
