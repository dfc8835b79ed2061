"""What every attack keeps: one joins by standing in ATTACKS."""

from __future__ import annotations

import pytest

from fedprivseg.attacks import ATTACKS
from fedprivseg.attacks.base import Inference, Reconstruction, UpdateAttack
from fedprivseg.testing import InferenceContract, ReconstructionContract, UpdateAttackContract


class OnPhantom:
    @pytest.fixture(scope="session")
    @classmethod
    def release(cls, phantom):
        return phantom


class TestReconstructions(OnPhantom, ReconstructionContract):
    parts = tuple(attack for attack in ATTACKS if issubclass(attack, Reconstruction))


class TestUpdateAttacks(OnPhantom, UpdateAttackContract):
    parts = tuple(attack for attack in ATTACKS if issubclass(attack, UpdateAttack))


class TestInferences(InferenceContract):
    parts = tuple(attack for attack in ATTACKS if issubclass(attack, Inference))
