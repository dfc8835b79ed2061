"""Sites whose codes are unlike those of the others, or from whose codes the server learns nothing: named, or left out.

Two looks. Before the training, at each site's codes alone: how far their values spread, and how many of them are the same as
another. After it, at how well the server's network predicts the mask codes of each site from its image codes. Each is compared
with the median of all sites, by a factor that the scenario sets: with a handful of hospitals no deviation can be estimated.
Codes that were shuffled against their masks look as they should, and show in the second look alone. Of fewer than three sites
none is the odd one out, and of two odd ones among three nobody can say which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from fedprivseg.methods.method import Codes, Federation

if TYPE_CHECKING:
    from fedprivseg.methods.coded_parameters import PrivacySFParameters

FEWEST = 3
"""Sites of which one can be the odd one out."""

ROWS = 256
"""Rows of codes that are looked at together, and most rows of a site whose prediction is looked at."""

MOST_REPEATED = 0.5
"""Largest share of a site's codes that may be the same as the one before."""


def spread_and_repeated(codes: Codes) -> tuple[float, float]:
    """How far the values of codes spread (their standard deviation), and the share of rows that repeat the one before."""
    total = squares = repeated = 0.0
    count = 0
    last: np.ndarray | None = None
    for rows in _parts(codes):
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        total, squares, count = total + flat.sum(), squares + np.square(flat).sum(), count + flat.size
        before = flat[:1] * np.nan if last is None else last
        repeated += float((np.concatenate([before, flat])[:-1] == flat).all(axis=1).sum())
        last = flat[-1:]
    if not count:
        return 0.0, 0.0
    return float(np.sqrt(max(0.0, squares / count - (total / count) ** 2))), repeated / len(codes)


def odd_codes(what: str, codes: Mapping[str, Codes], factor: float) -> dict[str, str]:
    """The sites whose codes are unlike those of the others, each with how, in words.

    Args:
        what: the codes are of: ``image`` or ``mask``.
        codes: of each site; sites without any are passed over.
        factor: how many times more or less than the median a site's codes may spread.
    """
    found = {site: spread_and_repeated(each) for site, each in codes.items() if len(each)}
    odd = {
        site: f"its {what} codes spread {words} as far as those of the median site"
        for site, words in _apart({site: spread for site, (spread, _) in found.items()}, factor, below=True).items()
    }
    for site, (_, repeated) in found.items():
        if repeated > MOST_REPEATED:
            odd[site] = f"{repeated:.0%} of its {what} codes repeat the one before"
    return odd


def odd_losses(losses: Mapping[str, float], factor: float) -> dict[str, str]:
    """The sites whose mask codes are predicted worse than those of the others, each with how, in words.

    Args:
        losses: mean squared error of the prediction, in variances of the site's own mask codes: 1 for nothing learned.
        factor: how many times more than the median it may be.
    """
    apart = _apart(losses, factor, below=False)
    return {site: f"the error on its mask codes is {words} that of the median site" for site, words in apart.items()}


def relative_error(images: Codes, masks: Codes, answer: Callable[[np.ndarray], np.ndarray]) -> float:
    """Mean squared error of ``answer(image codes)`` against mask codes, on rows spread evenly, in variances of the latter."""
    rows = np.unique(np.linspace(0, len(images) - 1, min(ROWS, len(images))).round().astype(np.int64))
    truth = masks.rows(rows).astype(np.float64)
    found = answer(images.rows(rows)).astype(np.float64)
    return float(np.square(found - truth).mean() / max(float(truth.var()), 1e-12))


def handle(p: PrivacySFParameters, federation: Federation, odd: Mapping[str, str]) -> bool:
    """Name the sites in `odd`, and leave them out if the rule of the scenario says so; whether any was left out."""
    for site, how in sorted(odd.items()):
        federation.note(site, f"outlying: {how}")
        if p.outlying == "left-out":
            federation.leave_out(site, f"outlying: {how}")
    return bool(odd) and p.outlying == "left-out"


def _apart(values: Mapping[str, float], factor: float, *, below: bool) -> dict[str, str]:
    """The sites whose value is more than `factor` times the median, or, with `below`, less than that part of it; in words."""
    if len(values) < FEWEST:
        return {}
    median = float(np.median(list(values.values())))
    ratios = {site: value / max(median, 1e-12) for site, value in values.items()}
    return {
        site: f"{ratio:.3g} times"
        for site, ratio in ratios.items()
        if ratio > factor or (below and median > 0 and ratio < 1 / factor)
    }


def _parts(codes: Codes) -> Iterator[np.ndarray]:
    for start in range(0, len(codes), ROWS):
        yield codes.rows(np.arange(start, min(start + ROWS, len(codes))))
