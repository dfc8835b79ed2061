"""What stands beside imported images: of each patient, by pseudonym, what was imported, of which class and which level.

The file is written when DICOM is imported (`dicom.import_patients`) and read at the site's intake, which takes the level of a
subject from it. It holds numbers, known words and names of attributes, and nothing that a person wrote into a header
(T/SCGS 313008-2024 clauses 5.1.2-d and 5.1.2-e). It must move along with the images: without it a subject counts as one whose
release says nothing of faces and burned-in text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from fedprivseg.core.errors import DataError
from fedprivseg.core.model import Frozen

IMPORTED = "imported.json"
"""In the folder that an import wrote, and in a release that was made of it."""


class ImportedSeries(Frozen):
    """One series. data_class: of Table 1 (5.1.3). images: how many, frames counted. level: of clause 5.5, with what raised it.
    removed: keywords of the attributes that were taken out or emptied. files: NIfTI files, relative to the import's folder."""

    modality: str | None
    data_class: str
    body_part: str | None
    images: int = Field(ge=1)
    level: int = Field(ge=1, le=5)
    concerns: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class ImportedSubject(Frozen):
    """One patient's series."""

    series: tuple[ImportedSeries, ...] = Field(min_length=1)

    @property
    def level(self) -> int:
        """The highest level among the series."""
        return max(each.level for each in self.series)


class Imported(Frozen):
    """The whole file. history: what was done to every image, oldest first. subjects: by pseudonym."""

    format: Literal[1] = 1
    channel: Literal["dicom"] = "dicom"
    history: tuple[str, ...]
    subjects: Mapping[str, ImportedSubject]


def read_imported(folder: Path) -> Imported | None:
    """The file in `folder`; None if there is none. Raises DataError if there is one that cannot be read."""
    path = folder / IMPORTED
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as fault:
        raise DataError(f"{IMPORTED} cannot be read ({type(fault).__name__}); restore it from the import.") from None
    try:
        return Imported.model_validate_json(text)
    except ValidationError:
        # Its message would quote the file.
        raise DataError(
            f"{IMPORTED} is not what an import writes (format 1); restore it from the import, or import again."
        ) from None
