"""Consent: who is covered, who is not, and that a register which cannot be read covers nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.policy.consent import Consent, Duo, Register, Use, write_register

TODAY = date(2026, 3, 1)
GIVEN = Consent(
    subject="A1",
    purposes=frozenset({Duo.HEALTH_RESEARCH}),
    diseases=frozenset(),
    range=frozenset({"cine-mri"}),
    sharing=True,
    valid_from=date(2026, 1, 1),
    valid_until=date(2026, 12, 31),
    withdrawn=None,
    channel="outpatient clinic",
    source="cardiology",
)
DCM = {"purposes": frozenset({Duo.DISEASE_RESEARCH}), "diseases": frozenset({"DCM"})}
RESEARCH = Use(Duo.HEALTH_RESEARCH, frozenset(), "cine-mri")

# name: (what differs from GIVEN, what differs from a study for health research, the rule that decides)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "health research for a study of health research": ({}, {}, "consent.covers"),
    "no restriction": ({"purposes": frozenset({Duo.NO_RESTRICTION})}, {}, "consent.covers"),
    "general research covers health research": ({"purposes": frozenset({Duo.GENERAL_RESEARCH})}, {}, "consent.covers"),
    "health research does not cover general research": ({}, {"purpose": Duo.GENERAL_RESEARCH}, "consent.purpose"),
    "health research covers that of a disease": (
        {},
        {"purpose": Duo.DISEASE_RESEARCH, "diseases": frozenset({"DCM"})},
        "consent.covers",
    ),
    "research on the disease that was named": (
        DCM,
        {"purpose": Duo.DISEASE_RESEARCH, "diseases": frozenset({"DCM"})},
        "consent.covers",
    ),
    "research on another disease": (
        DCM,
        {"purpose": Duo.DISEASE_RESEARCH, "diseases": frozenset({"HCM"})},
        "consent.purpose",
    ),
    "research on one disease more": (
        DCM,
        {"purpose": Duo.DISEASE_RESEARCH, "diseases": frozenset({"DCM", "HCM"})},
        "consent.purpose",
    ),
    "research on diseases that are not named": (DCM, {"purpose": Duo.DISEASE_RESEARCH}, "consent.purpose"),
    "a disease's research does not cover health research": (DCM, {}, "consent.purpose"),
    "no purpose": ({"purposes": frozenset()}, {}, "consent.purpose"),
    "a limit without a purpose": ({"purposes": frozenset({Duo.NO_COMMERCE})}, {}, "consent.purpose"),
    "no commerce, none wanted": ({"purposes": frozenset({Duo.HEALTH_RESEARCH, Duo.NO_COMMERCE})}, {}, "consent.covers"),
    "no commerce, but commerce": (
        {"purposes": frozenset({Duo.HEALTH_RESEARCH, Duo.NO_COMMERCE})},
        {"commercial": True},
        "consent.purpose",
    ),
    "commerce was not excluded": ({}, {"commercial": True}, "consent.covers"),
    "an ethics approval is asked and named": (
        {"purposes": frozenset({Duo.HEALTH_RESEARCH, Duo.ETHICS_APPROVAL})},
        {"ethics": "EK 12/2025"},
        "consent.covers",
    ),
    "an ethics approval is asked and missing": (
        {"purposes": frozenset({Duo.HEALTH_RESEARCH, Duo.ETHICS_APPROVAL})},
        {},
        "consent.purpose",
    ),
    "no restriction but an ethics approval": (
        {"purposes": frozenset({Duo.NO_RESTRICTION, Duo.ETHICS_APPROVAL})},
        {},
        "consent.purpose",
    ),
    "a limit of time with its day": (
        {"purposes": frozenset({Duo.HEALTH_RESEARCH, Duo.TIME_LIMIT})},
        {},
        "consent.covers",
    ),
    "a limit of time without its day": (
        {"purposes": frozenset({Duo.HEALTH_RESEARCH, Duo.TIME_LIMIT}), "valid_until": None},
        {},
        "consent.term",
    ),
    "no end": ({"valid_until": None}, {}, "consent.covers"),
    "first day": ({"valid_from": TODAY}, {}, "consent.covers"),
    "a day early": ({"valid_from": date(2026, 3, 2)}, {}, "consent.term"),
    "last day": ({"valid_until": TODAY}, {}, "consent.covers"),
    "a day late": ({"valid_until": date(2026, 2, 28)}, {}, "consent.term"),
    "withdrawn today": ({"withdrawn": TODAY}, {}, "consent.withdrawn"),
    "withdrawn before": ({"withdrawn": date(2026, 1, 2)}, {}, "consent.withdrawn"),
    "withdrawn from tomorrow on": ({"withdrawn": date(2026, 3, 2)}, {}, "consent.covers"),
    "sharing refused": ({"sharing": False}, {}, "consent.sharing"),
    "another type of data": ({}, {"data": "ct"}, "consent.data-type"),
    "one of several types": ({"range": frozenset({"ct", "cine-mri"})}, {}, "consent.covers"),
    "no type of data": ({"range": frozenset()}, {}, "consent.data-type"),
}


@pytest.mark.parametrize(("changes", "wanted", "rule"), CASES.values(), ids=CASES)
def test_a_consent_covers_what_it_says_and_no_more(changes: dict[str, Any], wanted: dict[str, Any], rule: str) -> None:
    decision = replace(GIVEN, **changes).covers(replace(RESEARCH, **wanted), TODAY)
    assert (decision.rule, decision.allowed) == (rule, rule == "consent.covers"), decision.reason
    assert decision.clause == "5.1.2-b"
    assert decision.reason.endswith(".")
    assert "A1" not in decision.reason


def test_a_subject_without_a_line_has_not_consented(tmp_path: Path) -> None:
    write_register(tmp_path / "consent.csv", [GIVEN])
    register = Register.read(tmp_path / "consent.csv")
    assert register.decide("A1", RESEARCH, TODAY).allowed
    assert register.decide("A2", RESEARCH, TODAY).rule == "consent.absent"
    assert register.decide("", RESEARCH, TODAY).rule == "consent.absent"


words = st.text(
    st.characters(codec="utf-8", exclude_characters=";\r\n\0", exclude_categories=["Cs", "Zs", "Cc"]), max_size=8
)
days = st.dates(date(2000, 1, 1), date(2050, 1, 1))
consents = st.builds(
    Consent,
    subject=words.filter(bool),
    purposes=st.frozensets(st.sampled_from(Duo)),
    diseases=st.frozensets(words.filter(bool), max_size=3),
    range=st.frozensets(words.filter(bool), max_size=3),
    sharing=st.booleans(),
    valid_from=days,
    valid_until=st.none() | days,
    withdrawn=st.none() | days,
    channel=words,
    source=words,
)


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(consents, max_size=4, unique_by=lambda one: one.subject))
def test_a_register_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, lines: list[Consent]) -> None:
    path = tmp_path_factory.mktemp("register") / "consent.csv"
    write_register(path, lines)
    assert dict(Register.read(path).consents) == {line.subject: line for line in lines}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("agreed", "yes", "'agreed' or 'refused'"),
        ("DUO:0000006", "DUO:9999999", "terms of DUO:0000004"),
        ("2026-01-01", "1.1.2026", "'valid_from'"),
        ("2026-12-31", "never", "'valid_until'"),
        ("A1,", ",", "'subject'"),
        ("sharing", "shared", "has not just the columns"),
        (",cardiology", "", "has not just the columns"),
        (",cardiology", ",cardiology,more", "has not just the columns"),
        ("outpatient", '"outpatient', "cannot be read"),
    ],
)
def test_a_register_with_a_line_that_cannot_be_read_covers_nobody(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "consent.csv"
    write_register(path, [GIVEN])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RequestError, match=said) as caught:
        Register.read(path)
    assert "A1" not in str(caught.value)
    assert "clinic" not in str(caught.value)


def test_a_register_that_names_a_subject_twice_or_is_not_there_covers_nobody(tmp_path: Path) -> None:
    path = tmp_path / "consent.csv"
    with pytest.raises(RequestError, match="nobody is enrolled"):
        Register.read(path)
    write_register(path, [GIVEN])
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(RequestError, match="second time"):
        Register.read(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="cannot be read"):
        Register.read(path)
