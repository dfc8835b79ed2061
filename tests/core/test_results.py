"""What makes a run of no use is said in a sentence."""

from __future__ import annotations

import pytest

from fedprivseg.core.results import Scores, SiteResult, failures

NAMES = ("LV", "MYO", "RV")


def _site(*dice: float | None) -> SiteResult:
    known = [value for value in dice if value is not None]
    mean = sum(known) / len(known) if known else None
    scores = Scores(structures=dict(zip(NAMES, dice, strict=True)), mean=mean)
    nothing = Scores(structures=dict.fromkeys(NAMES), mean=None)
    counts = {
        "subjects_train": 1,
        "subjects_test": 1,
        "slices_train": 1,
        "slices_test": 1,
        "bytes_up": 0,
        "bytes_down": 0,
    }
    return SiteResult(
        status="ok", dice=scores, hd95_mm=nothing, assd_mm=nothing, seconds=0.0, peak_rss_mb=0.0, **counts
    )


NONE = (None, None, None)


@pytest.mark.parametrize(
    ("sites", "says"),
    [
        ([(0.9, 0.8, 0.7), (0.9, 0.8, 0.7)], None),
        ([(0.9, 0.8, 0.0), (0.9, 0.8, 0.3)], None),  # lost at one site, found at the other
        ([(0.9, 0.8, 0.0), (0.9, 0.8, 0.04)], "This run lost RV: Dice below 0.05 at every site"),
        ([(0.9, 0.0, 0.0), NONE], "This run lost MYO, RV: Dice below 0.05 at every site"),
        ([(0.9, 0.8, None), (0.9, 0.8, None)], None),  # nobody has it: nothing was lost
        ([(0.0, 0.1, 0.02), (0.0, 0.0, 0.0)], "This run segments nothing: mean Dice 0.020 over 2 sites"),
        ([(0.06, 0.06, 0.06)], None),
        ([NONE, NONE], "Nothing was measured"),
    ],
)
def test_failures(sites, says):
    found = failures({f"centre{number}": _site(*dice) for number, dice in enumerate(sites)})
    assert len(found) == (says is not None)
    assert says is None or found[0].startswith(says)
