"""Gradings: Table 2 applied to what leaves, at the gate and in its ledger."""

from __future__ import annotations

from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes import as_it_is

from fedprivseg.core.kinds import IMAGE_CODE, METRIC
from fedprivseg.core.records import Payload
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.policy.gate import Gate, Refused, Released
from fedprivseg.governance.policy.grading import Grading, judge
from fedprivseg.governance.policy.policy_context import PolicyContext, Safeguards
from fedprivseg.governance.policy.profile import SitePolicy, differences, meet, read_profile
from fedprivseg.governance.policy.technique_table import TABLE_2, Grade, Recommendation, Technique

CODE = Payload(IMAGE_CODE, "centre1", "train", {"codes": np.zeros((1, 2, 3, 3), np.float16)})
KEY = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))  # fixed, for tests only


def grading(utility: str = "high", confidentiality: str = "low", unadvised: str = "refuse") -> Grading:
    return Grading(of=("image-code",), utility=utility, confidentiality=confidentiality, unadvised=unadvised)  # type: ignore[arg-type]


def gate(*strategy: Grading, techniques: tuple[Technique, ...] = (Technique.NUMERIC_TRANSFORM,)) -> Gate:
    policy = read_profile("open-research").model_copy(update={"strategy": strategy})
    standing = PolicyContext(policy, date(2026, 1, 1), safeguards=Safeguards(techniques={IMAGE_CODE: techniques}))
    return Gate(frozenset({IMAGE_CODE, METRIC}), "centre1", standing)


@pytest.mark.parametrize(("utility", "confidentiality"), list(product(Grade, Grade)))
@pytest.mark.parametrize("technique", Technique)
def test_the_gate_refuses_exactly_what_the_cell_advises_against(
    technique: Technique, utility: Grade, confidentiality: Grade
) -> None:
    decision = gate(grading(utility, confidentiality), techniques=(technique,)).decide(CODE)
    assert decision.allowed is (technique not in TABLE_2[utility, confidentiality].not_recommended)
    if not decision.allowed:
        assert (decision.rule, decision.clause) == ("technique.not-recommended", "5.2")
        assert f"recommends against {technique}" in decision.reason


@pytest.mark.parametrize(
    ("techniques", "verdict"),
    [
        (("random perturbation",), "recommended"),
        (("data transformation",), "open"),
        (("data transformation", "random perturbation"), "recommended"),
        (("random perturbation", "numeric transform"), "not recommended"),
        (("numeric transform", "random perturbation", "data transformation"), "not recommended"),
        ((), "not recommended"),
    ],
)
def test_what_is_advised_against_outweighs_all_else_and_nothing_is_no_technique(
    techniques: tuple[str, ...], verdict: str
) -> None:
    (judged,) = judge([grading()], IMAGE_CODE, tuple(map(Technique, techniques)))
    assert judged.verdict == verdict
    assert judged.refused is (verdict == "not recommended")


def test_a_grading_is_about_its_kinds_alone() -> None:
    assert judge([grading()], METRIC, ()) == ()
    metric = Payload(METRIC, "centre1", "measure", {"dice": np.zeros(1)}, level=2)
    assert gate(grading()).decide(metric).allowed


def test_a_policy_that_only_notes_lets_it_out_and_the_ledger_keeps_the_verdict(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", KEY, "centre1")

    def release(*strategy: Grading) -> Released | Refused:
        return gate(*strategy).release(
            CODE.encode(), ledger, KEY, "encode", run_id="run1", number=0, expected=lambda: as_it_is(CODE)
        )

    assert isinstance(release(grading(unadvised="note")), Released)
    assert isinstance(release(grading()), Refused)
    assert isinstance(release(), Released)
    _, noted, refused, ungraded = read(ledger.path)
    assert noted.facts["techniques"] == refused.facts["techniques"] == ["numeric transform"]
    assert noted.facts["technique_advice"] == ["high utility, low confidentiality: not recommended"]
    assert refused.facts["clause"] == "5.2"
    assert "technique_advice" not in ungraded.facts


def test_a_meet_refuses_what_either_refuses() -> None:
    one = read_profile("open-research").model_copy(update={"strategy": (grading(),)})
    other = one.model_copy(update={"strategy": (grading("low", "high"),)})

    def leaves(policy: SitePolicy, technique: Technique) -> bool:
        standing = PolicyContext(policy, date(2026, 1, 1), safeguards=Safeguards(techniques={IMAGE_CODE: (technique,)}))
        return standing.objection(IMAGE_CODE, "train") is None

    for technique in Technique:
        assert leaves(meet(one, other), technique) is (leaves(one, technique) and leaves(other, technique))
    assert not leaves(meet(one, other), Technique.NUMERIC_TRANSFORM)
    assert not leaves(meet(one, other), Technique.OCCLUSION)
    assert differences(one, other) == (
        "Now graded: image-code of low utility and high confidentiality, refused if not recommended.",
        "No longer graded: image-code of high utility and low confidentiality, refused if not recommended.",
    )


def test_the_standard_s_own_profile_refuses_what_the_table_advises_against() -> None:
    assert {grading.unadvised for grading in read_profile("scgs-313008").strategy} == {"refuse"}
    assert Recommendation.RECOMMENDED in {
        each.verdict
        for each in judge(read_profile("scgs-313008").strategy, IMAGE_CODE, (Technique.DATA_TRANSFORMATION,))
    }
