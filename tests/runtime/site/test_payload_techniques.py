"""Techniques of clause 5.2: every kind and every protection says what it is in the words of Table 2."""

from __future__ import annotations

import pytest
from conftest import ROOT
from protection_examples import example

from fedprivseg.core.kinds import IMAGE_CODE, KINDS, MASK_CODE, MASKED_WEIGHTS, RAW, WEIGHTS
from fedprivseg.governance.policy.technique_table import Technique
from fedprivseg.methods import resolve as resolve_method
from fedprivseg.protections import PROTECTIONS, resolve
from fedprivseg.runtime.site.payload_techniques import techniques_of
from fedprivseg.study.run import load_scenario


def of(*settings):
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", settings)
    return techniques_of(resolve_method(scenario.method), scenario.protections)


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda each: each.name)
def test_a_protection_speaks_the_words_of_the_table(protection):
    names = resolve(example(protection.name)).techniques
    assert names
    assert [Technique(name) for name in names] == list(names)


def test_every_kind_has_its_place():
    assert set(of()) == set(KINDS)
    assert of()[RAW] == ()
    assert of()[MASKED_WEIGHTS] == (Technique.SYMMETRIC_ENCRYPTION,)


def test_codes_are_transformed_data_and_what_is_done_to_them_comes_after():
    plain = of()
    assert plain[IMAGE_CODE] == plain[MASK_CODE] == (Technique.DATA_TRANSFORMATION,)
    rounded = '{name="precision", parameters={least=-4, most=4}}'
    noised = of(f'protections=[{{name="noise"}}, {rounded}, {{name="keyed", parameters={{cells=true}}}}]')
    assert noised[MASK_CODE] == plain[MASK_CODE]
    assert noised[IMAGE_CODE] == (
        Technique.DATA_TRANSFORMATION,
        Technique.RANDOM_PERTURBATION,
        Technique.TRUNCATION,
        Technique.NUMERIC_TRANSFORM,
        Technique.REARRANGEMENT,
    )


def test_a_keyed_transform_that_does_nothing_is_no_technique():
    keyed = of('protections=[{name="keyed", parameters={mix=false}}]')
    assert keyed[IMAGE_CODE] == (Technique.DATA_TRANSFORMATION,)


def test_weights_of_a_private_training_carry_noise():
    fedavg = ["method.name=fedavg", 'method.variant=""']
    assert of(*fedavg, "method.parameters={}")[WEIGHTS] == (Technique.STATISTICS,)
    private = of(*fedavg, "method.parameters={dp={epsilon=8}}")
    assert private[WEIGHTS] == (Technique.STATISTICS, Technique.RANDOM_PERTURBATION)
