"""What is read out of a DICOM header: a short list of fields, and of free text known words alone.

Minimal necessity (T/SCGS 313008-2024 clauses 5.1.1 and 5.1.2-d): what is not listed here is not read. A field that anybody can
write into, such as the manufacturer, counts only where it is one of the words that are known.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fedprivseg.imaging.dicom.concerns import BODY_PARTS, FACE_PARTS, MODALITIES, term

OLDEST = 90
"""Ages over 89 stand in one band: HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)."""

BAND_YEARS = 5

VENDORS = (
    "CANON",
    "ESAOTE",
    "FUJIFILM",
    "GE",
    "HITACHI",
    "MINDRAY",
    "NEUSOFT",
    "PHILIPS",
    "SAMSUNG",
    "SIEMENS",
    "TOSHIBA",
    "UIH",
)
"""Manufacturers as a record names them; another one is 'other', because the attribute is free text."""


@dataclass(frozen=True)
class Record:
    """The fields of one image; what is not known is None.

    age_band: '60-64' and the like, '90+' in one. row_spacing_mm, column_spacing_mm: between the centres of rows and of columns.
    images: how many, frames counted.
    """

    modality: str | None
    body_part: str | None
    sex: str | None
    age_band: str | None
    manufacturer: str | None
    field_strength_t: float | None
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    slice_thickness_mm: float | None
    slice_spacing_mm: float | None
    rows: int
    columns: int
    images: int


def header_record(header: Any, stated: str | None) -> Record:
    """The record of one image, from its header (pydicom, before it is de-identified).

    stated: the body part for a header that names no known one. What pydicom raises on a damaged header goes through.
    """
    part = term(str(header.get("BodyPartExamined") or ""))
    spacing = _measured(header, "PixelSpacing") or (None, None)
    return Record(
        modality=_known(header.get("Modality"), MODALITIES),
        body_part=part if part in BODY_PARTS | FACE_PARTS else stated,
        sex=_known(header.get("PatientSex"), ("F", "M", "O")),
        age_band=_age_band(str(header.get("PatientAge") or "")),
        manufacturer=_vendor(str(header.get("Manufacturer") or "")),
        field_strength_t=_positive(header.get("MagneticFieldStrength")),
        row_spacing_mm=_positive(spacing[0]),
        column_spacing_mm=_positive(spacing[1]),
        slice_thickness_mm=_positive(_measured(header, "SliceThickness")),
        slice_spacing_mm=_positive(_measured(header, "SpacingBetweenSlices")),
        rows=int(header.Rows),
        columns=int(header.Columns),
        images=int(header.get("NumberOfFrames") or 1),
    )


def _measured(header: Any, keyword: str) -> Any:
    """A pixel measure, from the image itself or from what all frames of an enhanced image share."""
    if header.get(keyword) is not None:
        return header.get(keyword)
    for shared in header.get("SharedFunctionalGroupsSequence") or ():
        for measures in shared.get("PixelMeasuresSequence") or ():
            return measures.get(keyword)
    return None


def _positive(value: Any) -> float | None:
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) and number > 0 else None


def _known(value: Any, words: Collection[str]) -> str | None:
    return str(value) if value in words else None


def _vendor(text: str) -> str | None:
    first = re.match(r"[A-Z]+", text.strip().upper())
    if not text.strip():
        return None
    return first[0] if first and first[0] in VENDORS else "other"


def _age_band(age: str) -> str | None:
    """'062Y' (value representation AS) as '60-64', from 90 years on as '90+'; months, weeks and days count in whole years."""
    if len(age) != 4 or not age[:3].isdigit() or age[3] not in "YMWD":
        return None
    years = int(int(age[:3]) / {"Y": 1, "M": 12, "W": 52.18, "D": 365.25}[age[3]])
    first = years // BAND_YEARS * BAND_YEARS
    return f"{OLDEST}+" if years >= OLDEST else f"{first}-{first + BAND_YEARS - 1}"
