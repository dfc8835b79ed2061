"""Under which techniques of clause 5.2 payloads leave a site: those of what they are, and of what is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedprivseg.core.config import Scenario
from fedprivseg.core.kinds import KindSpec, known_kinds
from fedprivseg.governance.policy.technique_table import Technique
from fedprivseg.methods import resolve as resolve_method
from fedprivseg.protections import resolve as resolve_protection


def techniques_of(scenario: Scenario) -> Mapping[KindSpec, tuple[Technique, ...]]:
    """The techniques of each kind of payload, in the order in which they are applied."""
    found = {kind: [Technique(name) for name in kind.techniques] for kind in known_kinds()}
    for kind, names in resolve_method(scenario.method).techniques.items():
        found[kind] += [Technique(name) for name in names]
    for config in scenario.protections:
        for of in config.of:
            found[of] += [Technique(name) for name in resolve_protection(config).techniques]
    return MappingProxyType({kind: tuple(dict.fromkeys(names)) for kind, names in found.items()})
