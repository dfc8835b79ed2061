"""The keys by which a server knows its sites: noted when each first spoke, and never exchanged for another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from fedprivseg.core.documents import read_json
from fedprivseg.core.errors import FolderError, LedgerError
from fedprivseg.core.files import write_text

IDENTITIES = "identities.json"
"""In the server's folder: each site's public key (hex)."""

_KEY = re.compile("[0-9a-f]{64}")
_REMEDY = "Put back a copy of it: without it nobody can tell whose the sites' ledgers and payloads are"


def read_identities(folder: Path) -> dict[str, str]:
    """Each site's public key, 64 hex digits, from the server's folder `folder`. Raises LedgerError if the record is gone or
    damaged: the sites are then known to nobody."""
    path = folder / IDENTITIES
    try:
        found = read_json(path, _REMEDY)
    except FolderError as fault:
        raise LedgerError(str(fault)) from None
    if not isinstance(found, dict) or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in found.values()):
        raise LedgerError(f"{path} was changed: it is no record of the sites' keys. {_REMEDY}.")
    return found


def write_identities(folder: Path, keys: Mapping[str, str]) -> None:
    """Note the sites' keys. Raises OSError."""
    write_text(folder / IDENTITIES, json.dumps(dict(keys), sort_keys=True, indent=1))
