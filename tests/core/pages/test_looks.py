"""No two methods look the same, and a colour-blind reader can tell them apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fedprivseg.core.pages.looks import FORBIDDEN, PALETTE, looks_of

# Machado, Oliveira, Fernandes, IEEE TVCG 15(6):1291, 2009, table of severity 1.0; they multiply linear RGB.
SIGHT = {
    "common": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]


def cielab(colour: str, sight: np.ndarray) -> np.ndarray:
    """A colour ``#RRGGBB`` in CIELAB (D65), as it is seen."""
    given = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    linear = np.where(given <= 0.04045, given / 12.92, ((given + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(sight @ linear, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_told_apart_in_every_sight(sight):
    """A difference of 2.3 is just noticeable on neighbouring fields; small marks apart want several times that."""
    seen = {colour: cielab(colour, np.asarray(SIGHT[sight])) for colour in (*PALETTE, FORBIDDEN)}
    apart = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(seen, 2)}
    assert min(apart.values()) > 15, min(apart, key=apart.__getitem__)


def test_no_two_look_the_same():
    looks = looks_of([False] * 252)
    assert len(set(looks)) == 252
    # Of the first 28, which is more than a figure can hold, colour and line alone tell any two apart; so do colour and marker.
    assert len({(look.colour, look.line) for look in looks[:28]}) == 28
    assert len({(look.colour, look.marker) for look in looks[:63]}) == 63


def test_neighbours_differ_in_colour_marker_and_line():
    for one, two in combinations(looks_of([False] * 4), 2):
        assert one.colour != two.colour
        assert one.marker != two.marker
        assert one.line != two.line


def test_what_is_forbidden_is_red_and_takes_no_look_away():
    looks = looks_of([True, False, True, False])
    assert [look.colour for look in looks] == [FORBIDDEN, PALETTE[0], FORBIDDEN, PALETTE[1]]
    assert [looks[1], looks[3]] == looks_of([False, False])
    assert looks[0].marker != looks[2].marker


def test_more_than_there_are_looks_is_refused():
    with pytest.raises(ValueError, match="13 cannot be told apart"):
        looks_of([True] * 13)
