"""The words for what is done to data before others may see it: Table 2 of T/SCGS 313008-2024, clause 5.2."""

from __future__ import annotations

from enum import StrEnum


class Technique(StrEnum):
    """The techniques of Table 2. The values stand in history lines and in reports."""

    chinese: str
    """The word of the standard itself, for whoever compares a report with it."""

    def __new__(cls, value: str, chinese: str = "") -> Technique:
        """The member of that value."""
        member = str.__new__(cls, value)
        member._value_, member.chinese = value, chinese
        return member

    GENERALISATION = "generalisation", "泛化技术"
    RANDOM_PERTURBATION = "random perturbation", "随机干扰"
    REARRANGEMENT = "rearrangement", "重排"
    PERMUTATION = "permutation", "置换"
    MASKING = "masking", "屏蔽"
    SUBSTITUTION = "substitution", "替代"
    NUMERIC_TRANSFORM = "numeric transform", "数值变换"
    NULL_INSERTION = "null insertion", "空值插入"
    TRUNCATION = "truncation", "数据截断"
    STATISTICS = "statistics", "统计技术"
    RANDOMISATION = "randomisation", "随机化技术"
    OCCLUSION = "occlusion", "遮挡"
    DATA_TRANSFORMATION = "data transformation", "数据变换"
    SYMMETRIC_ENCRYPTION = "symmetric encryption", "对称加密算法"
    HOMOMORPHIC_ENCRYPTION = "homomorphic encryption", "同态加密"
