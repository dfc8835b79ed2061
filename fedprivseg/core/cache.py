"""The cache: phantoms and gridded images, kept between runs. It may be deleted at any time."""

from __future__ import annotations

import os
from pathlib import Path

from fedprivseg.core.errors import FolderError
from fedprivseg.core.files import obstacle

CACHE = "FEDPRIVSEG_CACHE"
"""Environment variable: the folder of the cache, if it is not to be ``~/.cache/fedprivseg``."""

_REMEDY = f"set {CACHE} to a folder that can be written, one that is your own, since images lie in it"


def cache_folder() -> Path:
    """Where the cache lies: ``$FEDPRIVSEG_CACHE`` or ``~/.cache/fedprivseg``. Raises FolderError if neither is known, or a path
    is no text in UTF-8, as which a site's files keep it."""
    if named := os.environ.get(CACHE):
        folder = Path(named)
    else:
        try:
            folder = Path.home() / ".cache" / "fedprivseg"
        except RuntimeError:
            raise FolderError(
                f"there is no home folder for the cache of phantoms and gridded images; {_REMEDY}"
            ) from None
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise FolderError(f"the cache folder {str(folder)!r} is no text in UTF-8; {_REMEDY}") from None
    return folder


def require_cache() -> None:
    """Make the cache folder if it lacks. Raises FolderError that names it, its variable and the remedy if it cannot be made or
    written: every run keeps its gridded images there."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = obstacle(folder)
    except OSError as fault:
        why = fault.strerror or type(fault).__name__
    if why:
        raise FolderError(f"the cache of phantoms and gridded images, {folder}, cannot be written ({why}); {_REMEDY}")
