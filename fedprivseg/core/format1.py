"""What run folders of format 1 say otherwise than those of today. They knew one task, that of `task.default_task`.

Format 1 named the task's structures and time points in its fields: a score had one field a structure, a subject the frames of
two phases. What reads such a folder translates here, and knows no more of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

STRUCTURES = ("LV", "MYO", "RV")
PHASES = ("ED", "ES")
MEASURES = ("dice", "hd95_mm", "assd_mm")


def result_of_format_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a ``result.json`` of schema version 1 as version 2 has it. Raises KeyError, TypeError or AttributeError
    for one that is none."""
    sites = {
        name: {**site, **{measure: _scores(site[measure]) for measure in MEASURES}}
        for name, site in content["sites"].items()
    }
    means = {}
    for structure in STRUCTURES:
        known = [v for site in sites.values() if (v := site["dice"]["structures"][structure]) is not None]
        means[structure] = fmean(known) if known else None
    return {**content, "sites": sites, "mean_dice": means, "overall_dice": content["mean_dice"]}


def _scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """One measure of one site."""
    others = {key: value for key, value in scores.items() if key not in STRUCTURES}
    return {**others, "structures": {structure: scores[structure] for structure in STRUCTURES}}


def subject_of_format_1(subject: Any) -> Any:
    """A subject of a list of participants, as `records.Subject` has it today; of a later format it comes back as it is."""
    if not isinstance(subject, dict) or "frames" in subject:
        return subject
    told = {"disease": "pathology", "sex": "sex", "vendor": "vendor"}
    kept = ("code", "centre", "split", "labelled", "image", "mask", "order")
    return {
        **{name: subject.get(name) for name in kept},
        "order": subject.get("order") or STRUCTURES,
        "frames": {phase: subject.get(phase.lower()) for phase in PHASES},
        "attributes": {now: subject.get(then, "") for now, then in told.items()},
    }
