"""Contract tests that every method, attack and protection keeps, ours and those of other packages.

Subclass a contract, name what is tested, and pytest finds the rest::

    from example import Example

    from fedprivseg.testing import MethodContract


    class TestExample(MethodContract):
        parts = (Example,)

The package that holds the part must be installed (``pip install -e .``), since a run finds it by its entry point. Needs
``fedprivseg[test]``.
"""

from fedprivseg.testing.attack_contracts import InferenceContract, ReconstructionContract, UpdateAttackContract
from fedprivseg.testing.method_contract import FinishedRun, MethodContract
from fedprivseg.testing.protection_contract import ProtectionContract

__all__ = [
    "FinishedRun",
    "InferenceContract",
    "MethodContract",
    "ProtectionContract",
    "ReconstructionContract",
    "UpdateAttackContract",
]
