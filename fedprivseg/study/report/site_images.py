"""The images that the sites of a simulation kept for the report: read after the run, so that drawing the page opens no vault.

A site whose policy asks for encryption keeps them encrypted at rest; they are decrypted into memory here, and go into no other
file than the report. Where the scenario says ``report.images = false`` nothing is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from fedprivseg.core.errors import FedprivsegError
from fedprivseg.core.results import Result, read_result
from fedprivseg.core.runfolder import RunFolder, SiteFolder
from fedprivseg.governance.sitefolder.vault import PICTURES, open_vault
from fedprivseg.study.report.slices import Case

CASES = ("best", "median", "worst")


@dataclass(frozen=True)
class SiteImages:
    """What a simulated site kept for the report.

    Attributes:
        cases: one slice of the best, the median and the worst test volume, by these names.
        slice: (H, W) a test slice, 0..1, or None.
        code: (C, h, w) the code of that slice, or None.
        unreadable: whether there is something that could not be read.
    """

    cases: Mapping[str, Case]
    slice: np.ndarray | None = None
    code: np.ndarray | None = None
    unreadable: bool = False


def images_allowed(result: Result) -> bool:
    """Whether the report may show images. Denied unless the result's scenario says so explicitly."""
    return result.scenario.get("report", {}).get("images") is True


def images_of(folder: Path) -> dict[str, SiteImages]:
    """What each site of a finished run kept, by name; sites that kept nothing are left out.

    Args:
        folder: the run's.

    Raises:
        FolderError: the run has no result.
    """
    result = read_result(folder)
    if not images_allowed(result):
        return {}
    found = {name: _of_site(RunFolder(folder).site(name)) for name in result.sites}
    return {name: images for name, images in found.items() if images is not None}


def _of_site(home: SiteFolder) -> SiteImages | None:
    if not home.vault.is_dir():  # opening a vault would make its folder
        return None
    try:
        vault = open_vault(home.path)
        arrays = vault.load(PICTURES) if vault.has(PICTURES) else None
        return None if arrays is None else _images(arrays)
    except (SafetensorError, FedprivsegError, KeyError, ValueError):
        return SiteImages({}, unreadable=True)  # the page says so


def _images(arrays: Mapping[str, np.ndarray]) -> SiteImages:
    """Raises KeyError if the arrays are not of that kind."""
    cases = {
        name: Case(
            image=arrays[f"{name}.image"],
            truth=arrays[f"{name}.truth"],
            prediction=arrays[f"{name}.prediction"],
            spacing=(float(arrays[f"{name}.spacing"][0]), float(arrays[f"{name}.spacing"][1])),
            dice=float(arrays[f"{name}.dice"][0]),
        )
        for name in CASES
        if f"{name}.image" in arrays
    }
    return SiteImages(cases, arrays.get("code.slice"), arrays.get("code.code"))
