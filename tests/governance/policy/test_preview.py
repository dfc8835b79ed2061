"""What a check before a run says: the kinds that can come under the scenario's own parameters, and what domains refuse."""

from __future__ import annotations

import pytest
from conftest import ROOT

from fedprivseg.core.config import MethodConfig
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, MASK_SHARE, MASKED_WEIGHTS, METRIC, STATUS, WEIGHTS
from fedprivseg.governance.policy.preview import preview_policy
from fedprivseg.methods import METHODS, resolve
from fedprivseg.runtime.site.payload_techniques import techniques_of
from fedprivseg.study.run import load_scenario


def _preview(scenario):
    method = resolve(scenario.method)
    return preview_policy(scenario, method.declared, techniques_of(method, scenario.protections))


MASKING = {MASKED_WEIGHTS, MASK_SHARE}


@pytest.mark.parametrize("method", tuple(METHODS), ids=lambda method: method.name)
def test_no_method_declares_more_than_it_can_export_and_none_both_ways_of_sending_weights(method):
    for variant in method.variants:
        declared = resolve(MethodConfig(name=method.name, variant=variant)).declared
        assert declared <= method.exports
        assert STATUS in declared, "the roll call"
        assert not ({WEIGHTS} <= declared and declared & MASKING)


@pytest.mark.parametrize(
    ("summation", "kinds"), [("float", {WEIGHTS}), ("fixed-point", {WEIGHTS}), ("secure", MASKING)]
)
def test_what_is_foreseen_follows_from_the_scenarios_parameters(summation, kinds):
    settings = ["method.name=fedavg", 'method.variant=""', f"method.parameters={{rounds=1, summation='{summation}'}}"]
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", settings)
    found = _preview(scenario)
    assert {each.kind for each in found} == kinds | {METRIC, STATUS}
    assert all(each.decision.allowed for each in found)


def test_what_may_not_pass_to_another_domain_is_said_beforehand():
    scenario = load_scenario(ROOT / "simulations/policy-domains.toml")
    found = _preview(scenario)
    refused = {
        (each.site, each.kind, each.decision.rule, each.decision.clause) for each in found if not each.decision.allowed
    }
    assert refused == {
        ("centre2", kind, "transfer.across-domains", "5.3.2-c") for kind in (IMAGE_CODE, MASK_CODE)
    }  # fmt: skip
    moved = load_scenario(ROOT / "simulations/policy-domains.toml", ["server.domain=centre2"])
    assert all(each.decision.allowed for each in _preview(moved))
