"""Under which techniques of clause 5.2 payloads leave a site: those of what they are, and of what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedprivseg.core.config import Scenario
from fedprivseg.core.records import Kind
from fedprivseg.governance.policy.technique_table import Technique
from fedprivseg.methods import resolve as resolve_method
from fedprivseg.methods import secure_aggregation
from fedprivseg.protections import resolve as resolve_protection

MADE_BY: Mapping[Kind, tuple[Technique, ...]] = MappingProxyType(
    {
        Kind.IMAGE_CODE: (Technique.DATA_TRANSFORMATION,),
        Kind.MASK_CODE: (Technique.DATA_TRANSFORMATION,),
        Kind.WEIGHTS: (Technique.STATISTICS,),
        Kind.METRIC: (Technique.STATISTICS,),
        Kind.STATUS: (Technique.STATISTICS,),
        Kind.MASKED: (Technique(secure_aggregation.TECHNIQUE),),
        Kind.SHARE: (Technique(secure_aggregation.TECHNIQUE),),
        Kind.RAW: (),
        Kind.KEY: (),
    }
)
"""What a payload of each kind is before any protection: codes are pictures in other numbers; weights, measures and counts are
computed over many records; raw data and keys are what they are."""


def techniques_of(scenario: Scenario) -> Mapping[Kind, tuple[Technique, ...]]:
    """The techniques of each kind of payload, in the order in which they are applied."""
    found = {kind: list(made_by) for kind, made_by in MADE_BY.items()}
    for kind, names in resolve_method(scenario.method).techniques.items():
        found[kind] += [Technique(name) for name in names]
    for config in scenario.protections:
        for of in config.of:
            found[Kind(of)] += [Technique(name) for name in resolve_protection(config).techniques]
    return MappingProxyType({kind: tuple(dict.fromkeys(names)) for kind, names in found.items()})
