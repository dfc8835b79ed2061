"""The words for what is done to data before others may see it: Table 2 of T/SCGS 313008-2024, clause 5.2."""

from __future__ import annotations

from enum import StrEnum


class Technique(StrEnum):
    """The techniques of Table 2. The values stand in history lines and in reports."""

    GENERALISATION = "generalisation"
    RANDOM_PERTURBATION = "random perturbation"
    REARRANGEMENT = "rearrangement"
    PERMUTATION = "permutation"
    MASKING = "masking"
    SUBSTITUTION = "substitution"
    NUMERIC_TRANSFORM = "numeric transform"
    NULL_INSERTION = "null insertion"
    TRUNCATION = "truncation"
    STATISTICS = "statistics"
    RANDOMISATION = "randomisation"
    OCCLUSION = "occlusion"
    DATA_TRANSFORMATION = "data transformation"
    SYMMETRIC_ENCRYPTION = "symmetric encryption"
    HOMOMORPHIC_ENCRYPTION = "homomorphic encryption"
