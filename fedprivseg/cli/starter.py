"""The starter `sites/` and `simulations/`: part of the checkout, and of the wheel as ``fedprivseg/starter``."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedprivseg.core.errors import FolderError

_PARTS = ("sites", "simulations")


def starter_folder() -> Path:
    """Where the starter lies: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    return package / "starter" if (package / "starter").is_dir() else package.parent


def copy_starter(folder: Path) -> list[Path]:
    """Copy the starter into `folder`; returns what was made. Raises FolderError rather than overwrite anything."""
    taken = [part for part in _PARTS if (folder / part).exists()]
    if taken:
        raise FolderError(f"{folder} already has {' and '.join(taken)}; choose another folder, nothing was written")
    try:
        for part in _PARTS:
            shutil.copytree(starter_folder() / part, folder / part)
    except OSError as fault:
        raise FolderError(f"{folder} cannot be written ({fault.strerror}); choose another folder") from None
    return [folder / part for part in _PARTS]
