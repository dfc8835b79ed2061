"""Reads ``attacks.json``, of this and of earlier formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedprivseg.core.documents import damaged, read_document
from fedprivseg.core.leakage_result import UPDATES, Leakage
from fedprivseg.core.runfolder import RunFolder

AGAIN = "Delete it and attack again"
"""What helps against a damaged record of attacks."""


def read_leakage(run: Path) -> Leakage | None:
    """What was measured of the run in `run`, or None if it was not attacked. Raises FolderError if the record is damaged."""
    path = RunFolder(run).attacks
    if not path.exists():
        return None
    content = read_document(path, AGAIN)
    try:
        version = content.get("version", 1)
        content = _from_version_1(content) if version == 1 else content
        return Leakage.model_validate(_from_version_2(content) if version in (1, 2) else content)
    except (ValidationError, LookupError, TypeError):
        raise damaged(path, "is no record of attacks that this release reads", AGAIN) from None


_RENAMED = {
    "redrawn": "reconstructions", "inferred": "inferences", "measures": "metrics", "recognised": "rank1",
    "measure": "metric", "floor": "lower_baseline", "ceiling": "upper_baseline",
}  # fmt: skip
_INDICATORS_1 = {"linkage": "linkage", "attributes": "attribute", "membership": "membership"}


def _from_version_1(content: Any) -> Any:
    """A record of version 1, or a part of it, as version 2 has it."""
    if isinstance(content, list):
        return [_from_version_1(each) for each in content]
    if not isinstance(content, dict):
        return content
    found = {_RENAMED.get(name, name): _from_version_1(value) for name, value in content.items()}
    if "scenario_sha256" in found:
        found["version"] = 2
    elif "count" in found:  # an inference
        above_chance, auc = found["attack"] == "attributes", "AUC" in found["metric"]
        counts = found["value"] - found["chance"] if above_chance else found["value"]
        counted = above_chance or (auc and "control" not in found["metric"])
        found |= {"indicator": _INDICATORS_1[found["attack"]], "counts": counts if counted else None}
    return found


def _from_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """A record of version 2 as version 3 has it: attacks that had something staged for them are those on updates. Images were
    reconstructed from test codes then, and masks from training codes."""
    staged = {one["attack"] for one in content["reconstructions"] if one.get("staged")}
    codes = {"images": "test", "masks": "train"}
    reconstructions = [
        {**one, "stream": UPDATES if one["attack"] in staged else codes[one["what"]]}
        for one in content["reconstructions"]
    ]
    streams = list(dict.fromkeys(one["stream"] for one in reconstructions if not one.get("staged")))
    return {**content, "version": 3, "reconstructions": reconstructions, "streams": streams}
