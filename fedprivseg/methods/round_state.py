"""What a site keeps from one round to the next, so that a round can be repeated after an interruption.

The vault keeps the last two rounds of each state: a round that is done a second time starts from what stood before it,
not from what its first, unfinished attempt left.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedprivseg.methods.method import Site

_NEWEST, _BEFORE = "newest/", "before/"
_NUMBERS = "rounds"


def save_state(site: Site, name: str, number: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep `arrays` as the state `name` after round `number`."""
    if not arrays:
        return
    kept = site.vault.load(name) if site.vault.has(name) else {_NUMBERS: np.array([-1, -1], np.int64)}
    newest, before = (int(value) for value in kept[_NUMBERS])
    old = {key: value for key, value in kept.items() if key.startswith(_BEFORE)}
    if newest < number:
        old = {_BEFORE + key.removeprefix(_NEWEST): v for key, v in kept.items() if key.startswith(_NEWEST)}
        before = newest
    new = {_NEWEST + key: value for key, value in arrays.items()}
    site.vault.save(name, {**old, **new, _NUMBERS: np.array([number, before], np.int64)})


def load_state(site: Site, name: str, number: int) -> dict[str, np.ndarray]:
    """The state `name` as it was before round `number`; empty if the site has none."""
    if not site.vault.has(name):
        return {}
    kept = site.vault.load(name)
    newest, before = (int(value) for value in kept[_NUMBERS])
    if 0 <= newest < number:
        prefix = _NEWEST
    elif 0 <= before < number:
        prefix = _BEFORE
    else:
        return {}
    return {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
