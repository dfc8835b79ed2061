"""The optional packages that read DICOM, and how they are kept quiet.

They are imported by name where they are used, so that all else works without them: ``pip install fedprivseg[dicom]``.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedprivseg.core.errors import RequestError


def library(name: str) -> Any:
    """The module `name` of an optional package. Raises RequestError that names the extra if it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise RequestError(
            f"reading DICOM needs the package {name.split('.')[0]!r}, which is not installed. "
            "Install the extra fedprivseg[dicom]."
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """While DICOM is read, neither warnings nor log lines of pydicom get out: they quote values and file names.

    Both are switched off for the whole process, so other threads are quiet as well for as long as this lasts.
    """
    logger = logging.getLogger("pydicom")

    def nothing(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeFilter(nothing)
