"""Admission: of every indicator the stricter of the scenario's and the attacked sites' thresholds, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedprivseg.core.config import AdmissionConfig, MethodConfig, Scenario, SiteConfig
from fedprivseg.core.errors import FolderError
from fedprivseg.core.leakage_result import InferenceResult, Leakage
from fedprivseg.study.leakage.admission import NOTHING, admitted, strictest

SCENARIO = Scenario(name="x", sites=(SiteConfig(name="a", centre=1),), method=MethodConfig(name="fedavg"))
LOOSE = AdmissionConfig(image_leakage=0.9, mask_leakage=0.9, membership=0.9)


def site(run: Path, name: str, *admission: str) -> None:
    home = run / "sites" / name
    home.mkdir(parents=True)
    words = ["[admission]", *admission] if admission else []
    (home / "policy.toml").write_text("\n".join(['profile = "open-research"', *words]) + "\n")


def test_the_stricter_counts_indicator_by_indicator_and_is_named(tmp_path):
    site(tmp_path, "a", "image_leakage = 0.05", "linkage = 0.9")
    site(tmp_path, "b", "mask_leakage = 0.2", "image_leakage = 0.4")
    found = strictest(tmp_path, LOOSE, ["b", "a"])
    assert (found.limits.image_leakage, found.whose["image_leakage"]) == (0.05, "the policy of a")
    assert (found.limits.mask_leakage, found.whose["mask_leakage"]) == (0.2, "the policy of b")
    # 0.65 is what the scenario, and b by the default, allow; a alone is looser.
    assert (found.limits.linkage, found.whose["linkage"]) == (0.65, "the scenario")
    assert (found.limits.membership, found.whose["membership"]) == (0.6, "the policy of a")
    alone = strictest(tmp_path, AdmissionConfig(), ["b"])
    assert (alone.limits.image_leakage, alone.whose["image_leakage"]) == (0.15, "the scenario")
    assert "a" not in " ".join(alone.whose.values()).split(), "the word of a site that was not attacked does not count"


@pytest.mark.parametrize(
    "text", [None, "", 'profile = "nobody"', 'profile = "open-research"\n[admission]\nlinkage = 2']
)
def test_a_site_whose_policy_cannot_be_read_admits_nothing(text, tmp_path):
    (tmp_path / "sites/a").mkdir(parents=True)
    if text is not None:
        (tmp_path / "sites/a/policy.toml").write_text(text)
    found = strictest(tmp_path, LOOSE, ["a"])
    assert found.limits == NOTHING
    assert set(found.whose.values()) == {"a, whose policy cannot be read"}


def _found(value: float) -> Leakage:
    found = InferenceResult(
        attack="membership", title="Membership", paper="x", site="a", knows="all", indicator="membership",
        metric="AUC", value=value, chance=0.5, raw=None, count="8 patients", counts=value,
    )  # fmt: skip
    return Leakage(
        scenario_sha256="0", method="m", variant="v", protections=(), budget="small", sites=("a",), auxiliary="none",
        reconstructions=(), inferences=(found,), left_out=(), seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "passes", "whose"), [("membership = 0.55", False, "the policy of a"), ("", True, "the scenario")]
)
def test_a_sites_own_threshold_decides_although_the_scenario_would_admit(policy, passes, whose, tmp_path):
    site(tmp_path, "a", policy)
    (tmp_path / "scenario.json").write_text(SCENARIO.model_dump_json())
    lines = {line.name: line for line in admitted(tmp_path, _found(0.58))}
    line = lines["membership in the training, AUC"]
    assert (line.passed, line.whose) == (passes, whose)
    assert lines["normalised leakage of images"].passed is None, "not measured is not admitted"


def test_a_folder_that_holds_no_run_has_no_table(tmp_path):
    with pytest.raises(FolderError, match="holds no run"):
        admitted(tmp_path, _found(0.5))
