"""Under which techniques of clause 5.2 payloads leave a site: those of what they are, and of what is done to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.core.kinds import KindSpec, known_kinds
from fedprivseg.governance.policy.technique_table import Technique
from fedprivseg.methods.method import Method
from fedprivseg.protections import resolve


def techniques_of(method: Method, protections: Iterable[ProtectionConfig]) -> Mapping[KindSpec, tuple[Technique, ...]]:
    """The techniques of each kind of payload, in the order in which they are applied."""
    found = {kind: [*kind.techniques, *method.techniques.get(kind, ())] for kind in known_kinds()}
    for config in protections:
        for kind in config.of:
            found[kind] += resolve(config).techniques
    return MappingProxyType({kind: tuple(dict.fromkeys(map(Technique, names))) for kind, names in found.items()})
