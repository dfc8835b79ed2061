"""One site's disk: keys, encoders and state live here and nowhere else, encrypted at rest if its policy says so (5.4.2-b)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load as read_safetensors
from safetensors.numpy import save as write_safetensors

from fedprivseg.core.arrays import load_arrays, save_arrays
from fedprivseg.core.documents import content_of
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.crypto.sealed_files import SealingKey, wants_passphrase
from fedprivseg.governance.policy.profile import SitePolicy, read_policy

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

POLICY, SEALING_KEY = "policy.toml", "sealing.key"
"""Files in a site's folder: its policy, and the key of its vault, which a backup of the vault must not hold."""

ARCHIVES = "archives"
"""The folder of a site's archives in its own."""

PASSPHRASE = "FEDPRIVSEG_PASSPHRASE"
"""Environment variable: the passphrase of a site whose sealing key is encrypted under one. It is tried for each order, which
takes 0.4 s."""

PICTURES = "pictures"
"""The name of what a vault holds for the report of a simulation."""


class Vault:
    """Named sets of arrays under `folder`, each one file, written atomically with mode 0600: safetensors, or with `key` the
    same encrypted. An encrypted vault takes no notice of files that are not."""

    def __init__(self, folder: Path, key: SealingKey | None = None) -> None:
        self.folder = folder
        self._key = key
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def sealed(self) -> bool:
        """Whether what is saved here is encrypted."""
        return self._key is not None

    def path(self, name: str) -> Path:
        """The file of `name`. Raises ValueError for a name that is not ``a-z 0-9 -``."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no vault name; allowed are a-z, 0-9 and '-', at most 64 of them")
        return self.folder / f"{name}.{'safetensors' if self._key is None else 'sealed'}"

    def has(self, name: str) -> bool:
        """Whether `name` was saved."""
        return self.path(name).exists()

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep `arrays` under `name`: either all of it is there afterwards, or what was there before."""
        path = self.path(name)
        if self._key is None:
            save_arrays(path, arrays)
            return
        content = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        write_durably(path, [self._key.seal(path.name, write_safetensors(content))])

    def load(self, name: str) -> dict[str, np.ndarray]:
        """What was saved under `name`. Raises FolderError if nothing was or the file is not as it was saved, SealError if one
        byte of a sealed file is not."""
        path = self.path(name)
        if self._key is None:
            return load_arrays(path)
        return read_safetensors(self._key.open(path.name, content_of(path)))


def prediction_name(row: int, phase: str) -> str:
    """The name of a prediction in a sealed vault: by the test subject's position, so that no file is named after a patient."""
    return f"prediction-{row:05d}-{phase.lower()}"


def open_vault(home: Path) -> Vault:
    """The vault of the site whose folder is `home`: encrypted, unless the site's policy says that it may be plain. Raises
    RequestError if it is to be encrypted and there is no key."""
    return Vault(SiteFolder(home).vault, sealing_key(home) if is_sealed(home) else None)


def policy_of(home: Path) -> SitePolicy | None:
    """The policy of the site whose folder is `home`; None if it has none that can be read, and then nothing leaves."""
    try:
        return read_policy(SiteFolder(home).policy)
    except RequestError:
        return None


def seals(policy: SitePolicy | None) -> bool:
    """Whether a site under `policy` encrypts what it keeps: always, unless its policy can be read and says otherwise."""
    return policy is None or policy.at_rest != "plain"


def is_sealed(home: Path) -> bool:
    """Whether the site of that folder encrypts what it keeps."""
    return seals(policy_of(home))


def sealing_key(home: Path, passphrase: str | None = None) -> SealingKey:
    """The key under which the site of that folder encrypts what it keeps. passphrase: for a key that is encrypted under one;
    None takes it from the environment (`PASSPHRASE`). Raises RequestError if there is no key or no passphrase, SealError for
    another one."""
    path = SiteFolder(home).sealing_key
    if not path.exists():
        raise RequestError(
            f"what is to be encrypted at the site needs its {SEALING_KEY}, and its folder has none; restore it, or make one "
            "with `fedprivseg vault key RUN SITE`"
        )
    given = os.environ.get(PASSPHRASE) if passphrase is None else passphrase
    if given is None and wants_passphrase(path):
        raise RequestError(
            f"the site's {SEALING_KEY} is encrypted under a passphrase; give it in the environment variable {PASSPHRASE}"
        )
    return SealingKey.load(path, given)
