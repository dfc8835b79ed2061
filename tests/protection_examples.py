"""Parameters of the operations that have no defaults for all of theirs: boxes and blocks that fit 4 x 4 cells and more."""

from __future__ import annotations

from typing import Any

from fedprivseg.core.config import ProtectionConfig

EXAMPLES: dict[str, dict[str, Any]] = {
    "occlusion": {"rows": [0, 2], "columns": [1, 3]},
    "masking": {"kept_rows": [0, 2], "kept_columns": [1, 3]},
    "null-insertion": {"regions": [[[0, 1], [0, 1]], [[2, 4], [1, 2]]]},
    "clipping": {"low": 5, "high": 95},
    "perturbation": {"deviation": 0.5},
    "numeric-transform": {"gain": 2.0, "offset": -1.0},
    "rearrangement": {"block": 2},
    "permutation": {"block": 2},
    "data-transformation": {"block": 2},
}


def example(name: str) -> ProtectionConfig:
    """The operation of this name with parameters that fit."""
    return ProtectionConfig(name=name, parameters=EXAMPLES.get(name, {}))
