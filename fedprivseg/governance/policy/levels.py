"""Classes of data (T/SCGS 313008-2024 clause 5.1.3, Table 1) and its five levels (5.5), assigned by rule and with the reason.

Three things raise a level, as the clause has it: whether a person can be identified from the data, whether it shows a special
disease, and how many records it holds. How much a *code* discloses of its image is not something that a rule knows: it
counts as data from which a person could be re-identified, with whatever noise, and attacks measure what it discloses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from fedprivseg.core.kinds import KindSpec

LEVELS: Mapping[int, str] = MappingProxyType(
    {
        1: "public",
        2: "broad access, nobody can be identified",
        3: "medium access, could be re-identified; the authorised project group alone",
        4: "narrow access, identifies directly; staff who treat alone",
        5: "strictly limited, details of special diseases; attending staff alone",
    }
)
"""Clause 5.5 in a few words each."""

IDENTIFYING = 4
"""The level of images that identify their patient directly, by a face or by text in them."""

RECORDS: tuple[tuple[int, int], ...] = ((10_000_000, 5), (1_000_000, 4), (10_000, 3), (1_000, 2))
"""From how many records on a collection has at least which level: the orders of size that clause 5.5 names."""


class DataClass(StrEnum):
    """Table 1 of clause 5.1.3."""

    BIOMETRIC = "personal biometric image"
    STRUCTURAL = "clinical image, structural"
    FUNCTIONAL = "clinical image, functional"
    OTHER = "clinical image, other"


CLASSES: Mapping[str, DataClass] = MappingProxyType(
    {
        **dict.fromkeys(("gene", "fingerprint", "voice-print", "palm", "ear", "iris", "face"), DataClass.BIOMETRIC),
        **dict.fromkeys(("x-ray", "ct", "ultrasound", "mri", "cine-mri"), DataClass.STRUCTURAL),
        **dict.fromkeys(("nuclear-medicine", "pet", "spect", "fmri", "doppler"), DataClass.FUNCTIONAL),
        **dict.fromkeys(("electrical-impedance", "microwave", "optical"), DataClass.OTHER),
    }
)
"""The class of each type of data."""

UNKNOWN_CLASS = "unknown"
"""Of what Table 1 does not name."""

MODALITIES: Mapping[str, DataClass] = MappingProxyType(
    {
        **dict.fromkeys(("OP", "OPM", "OPV", "OAM", "IO", "XC"), DataClass.BIOMETRIC),
        **dict.fromkeys(("CR", "CT", "DX", "MG", "MR", "PX", "RF", "RG", "US", "IVUS", "XA"), DataClass.STRUCTURAL),
        **dict.fromkeys(("NM", "PT"), DataClass.FUNCTIONAL),
        **dict.fromkeys(("ES", "IVOCT", "OCT", "OPT", "OPTBSV", "OPTENF", "SM"), DataClass.OTHER),
    }
)
"""The class of each DICOM modality (PS3.3 C.7.3.1.1.1): photographs of face, eyes and teeth show features of a person; light
makes the others of the last line. A functional or Doppler study is told by no modality, so MR and US count as structural."""


def class_of(modality: str | None) -> str:
    """The class of Table 1 for images of a DICOM `modality`, `UNKNOWN_CLASS` if the table names none."""
    return UNKNOWN_CLASS if modality is None or modality not in MODALITIES else MODALITIES[modality].value


@dataclass(frozen=True)
class Assigned:
    """A level with the sentence that says why."""

    level: int
    reason: str


def subject_level(*, identified: bool, special: bool) -> Assigned:
    """The level of one subject's images at the site.

    Args:
        identified: whether name, face or the like are still with them.
        special: whether they show a disease that the site treats as special.
    """
    if special:
        return Assigned(5, "the images show a special disease in detail")
    if identified:
        return Assigned(IDENTIFYING, "the images identify the patient directly")
    return Assigned(3, "the images are de-identified; the patient could be re-identified from the anatomy")


def payload_level(kind: KindSpec, *, special: bool, subjects: int, identified: bool = False) -> Assigned:
    """The level of a payload of `kind`.

    Args:
        special: whether any subject whose data it is made of has a special disease.
        subjects: how many these are.
        identified: whether the images of any identify directly, by a face or by text in them.
    """
    base = _base(kind, special=special, identified=identified)
    by_size = next((level for least, level in RECORDS if subjects >= least), 1)
    if by_size > base.level:
        return Assigned(by_size, f"it is made of {subjects} subjects' records")
    return base


def _base(kind: KindSpec, *, special: bool, identified: bool) -> Assigned:
    if kind.discloses == "images":
        return subject_level(identified=identified, special=special)
    if kind.discloses == "counts":
        return Assigned(2, "counts and measures identify nobody")
    if kind.discloses == "sum":
        return Assigned(2, "by itself it is random; only the sum over sites has a meaning")
    if special or identified:
        shown = "show a special disease" if special else "identify patients directly"
        return Assigned(4, f"it is made of images that {shown}, and nothing bounds what it discloses of them")
    return Assigned(3, "patients could be re-identified from it; nothing bounds what it discloses of them")
