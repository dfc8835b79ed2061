"""Table 2 of clause 5.2, cell by cell, against the words of the standard."""

from __future__ import annotations

from itertools import product

import pytest

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.policy.technique_table import (
    TABLE_2,
    Cipher,
    Grade,
    Recommendation,
    Technique,
    advice,
    cipher,
)

# The cells as they stand in T/SCGS 313008-2024, clause 5.2, Table 2: (utility, confidentiality) -> 宜使用, 不宜使用.
PRINTED = {
    ("high", "high"): ("同态加密", "遮挡、替代"),
    ("high", "low"): ("泛化技术、随机干扰、重排、置换、屏蔽、替代", "数值变换、空值插入"),
    ("low", "high"): ("对称加密算法、替代、空值插入、数据变换", "遮挡"),
    ("low", "low"): ("统计技术、随机化技术、泛化技术、数据截断、空值插入、遮挡", "加密技术"),
}
ENCRYPTION = {"对称加密算法", "同态加密"}  # what the last cell calls 加密技术


def printed(words: str) -> set[str]:
    names = set(words.split("、"))
    return names - {"加密技术"} | ENCRYPTION if "加密技术" in names else names


@pytest.mark.parametrize(("utility", "confidentiality"), PRINTED)
@pytest.mark.parametrize("technique", Technique)
def test_every_cell_says_what_the_standard_prints(technique: Technique, utility: str, confidentiality: str) -> None:
    recommended, against = map(printed, PRINTED[utility, confidentiality])
    verdict = "open"
    if technique.chinese in recommended:
        verdict = "recommended"
    elif technique.chinese in against:
        verdict = "not recommended"
    given = advice(technique, Grade(utility), Grade(confidentiality))
    assert (given.verdict, given.clause) == (verdict, "5.2")


def test_every_printed_word_is_a_technique_and_every_technique_is_printed() -> None:
    words = {word for cell in PRINTED.values() for half in cell for word in printed(half)}
    assert words == {technique.chinese for technique in Technique}
    assert len(words) == len(Technique) == 15


def test_the_table_has_as_many_entries_as_are_printed() -> None:
    # 1 + 2, 6 + 2, 4 + 1, 6 + 2 (加密技术 stands for two): counted in the printed table.
    sizes = {(u.value, c.value): (len(cell.recommended), len(cell.not_recommended)) for (u, c), cell in TABLE_2.items()}
    assert sizes == {("high", "high"): (1, 2), ("high", "low"): (6, 2), ("low", "high"): (4, 1), ("low", "low"): (6, 2)}


def test_no_cell_recommends_what_it_recommends_against() -> None:
    assert set(TABLE_2) == set(product(Grade, Grade))
    for cell in TABLE_2.values():
        assert not cell.recommended & cell.not_recommended


@pytest.mark.parametrize(
    ("technique", "verdict", "sentence"),
    [
        (
            Technique.HOMOMORPHIC_ENCRYPTION,
            Recommendation.RECOMMENDED,
            "Clause 5.2 recommends homomorphic encryption for data of high utility and high confidentiality.",
        ),
        (
            Technique.OCCLUSION,
            Recommendation.NOT_RECOMMENDED,
            "Clause 5.2 recommends against occlusion for data of high utility and high confidentiality; "
            "it recommends homomorphic encryption.",
        ),
        (
            Technique.STATISTICS,
            Recommendation.OPEN,
            "Clause 5.2 leaves statistics open for data of high utility and high confidentiality; "
            "it recommends homomorphic encryption.",
        ),
    ],
)
def test_advice_is_one_readable_sentence(technique: Technique, verdict: Recommendation, sentence: str) -> None:
    given = advice(technique, Grade.HIGH, Grade.HIGH)
    assert (given.verdict, given.sentence) == (verdict, sentence)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("blurring", "high", "low"),
            "'blurring' is no technique of clause 5.2; there are: data transformation, gener",
        ),
        (("masking", "medium", "low"), "'medium' is no grade of utility of clause 5.2; there are: high, low"),
        (("masking", "high", "none"), "'none' is no grade of confidentiality of clause 5.2; there are: high, low"),
    ],
)
def test_words_that_the_clause_does_not_have_are_refused_with_those_that_it_has(
    words: tuple[str, str, str], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        advice(*words)  # type: ignore[arg-type]


def test_plain_words_are_read() -> None:
    assert advice("masking", "high", "low") == advice(Technique.MASKING, Grade.HIGH, Grade.LOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["SM1", "sm1", " SM1 ", "SM1-GCM"])
def test_sm1_is_refused_because_it_is_not_published(name: str) -> None:
    with pytest.raises(RequestError, match=r"not published.*AES-256-GCM and SM4-GCM"):
        cipher(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AES", Cipher.AES_256_GCM),
        ("aes-256-gcm", Cipher.AES_256_GCM),
        ("SM4", Cipher.SM4_GCM),
        ("SM4-GCM", Cipher.SM4_GCM),
    ],
)
def test_the_ciphers_that_exist_are_found_by_the_table_s_names(name: str, expected: Cipher) -> None:
    assert cipher(name) is expected


@pytest.mark.parametrize("name", ["DES", "AES-128-CBC", "", "SM14"])
def test_other_ciphers_are_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(RequestError, match="what exists is AES-256-GCM and SM4-GCM"):
        cipher(name)
