"""A scenario's configuration of every operation that it may name."""

from __future__ import annotations

from fedprivseg.core.config import ProtectionConfig
from fedprivseg.protections import PROTECTIONS


def example(name: str) -> ProtectionConfig:
    """The operation of this name, with the examples of those of its parameters that have no default."""
    (fields,) = [kind.model_fields for kind in PROTECTIONS if kind.name == name]
    given = {each: field.examples[0] for each, field in fields.items() if field.is_required() and field.examples}
    return ProtectionConfig(name=name, parameters=given)
