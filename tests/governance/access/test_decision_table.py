"""Who may do what with which record, by which policy: every case of the table, and what a ruling says."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from importlib import resources
from pathlib import Path

import pytest
from access_cases import (
    AUTHORIZER,
    CARE,
    DOCTOR,
    DOWNLOAD,
    GUARDIAN,
    INFORMED,
    MANAGER,
    NOW,
    NURSE,
    OWN,
    OWN_TOLD,
    PATIENT,
    QUERY,
    ROWS,
    SAVE,
    VIEW,
    Row,
    ask,
    clock,
    names,
    own,
    rec,
)

from fedprivseg.governance.access import authorizer as module
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.cedar_files import Policy
from fedprivseg.governance.access.roles import (
    Context,
    Request,
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table(row: Row) -> None:
    ruling = AUTHORIZER.decide(ask(row))
    assert (ruling.allowed, names(ruling)) == (row.allowed, set(row.policies.split())), ruling.decision
    assert ruling.decision.rule in row.policies.split() or (ruling.decision.rule, row.policies) == (
        "access.no-permit",
        "",
    )


def test_the_table_is_large_and_says_each_thing_once() -> None:
    assert len(ROWS) >= 150
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({ask(row) for row in ROWS}) == len(ROWS)


def test_every_policy_decides_somewhere_in_the_table() -> None:
    assert {name for row in ROWS for name in row.policies.split()} == {policy.id for policy in AUTHORIZER.policies}


FORBIDDING = tuple(policy.id for policy in AUTHORIZER.policies if policy.effect == "forbid")
PERMITTING = tuple(policy.id for policy in AUTHORIZER.policies if policy.effect == "permit")


def without(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> CedarAuthorizer:
    """An authorizer of the package's policies less one, in a folder of its own."""
    (folder / "cedar").mkdir()
    for entry in (resources.files("fedprivseg.governance.access") / "cedar").iterdir():
        parts = re.split(r"(?m)^(?=@id)", entry.read_text(encoding="utf-8"))
        (folder / "cedar" / entry.name).write_text("".join(p for p in parts if not p.startswith(f'@id("{name}")')))
    with monkeypatch.context() as patch:
        patch.setattr(module.resources, "files", lambda package: folder)
        found = CedarAuthorizer(clock=clock, limit_s=60)
    assert {policy.id for policy in found.policies} == {policy.id for policy in AUTHORIZER.policies} - {name}
    return found


# Without one of these, what it forbids is still not permitted: they hold against a permit that says too much.
BACKED = frozenset(
    {
        "level.4-treating",
        "level.4-roles",
        "level.4-study",
        "level.5-attending",
        "level.5-keep",
        "person.foreign",
        "person.unauthorised",
        "project.none",
    }
)


def test_every_forbidding_policy_stands_alone_against_something() -> None:
    assert set(FORBIDDING) <= {row.policies for row in ROWS}


@pytest.mark.parametrize("name", FORBIDDING)
def test_without_a_forbidding_policy_something_is_let_in(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lax = without(name, monkeypatch, tmp_path)
    let_in = [row.name for row in ROWS if row.policies == name and lax.decide(ask(row)).allowed]
    assert bool(let_in) != (name in BACKED), let_in


@pytest.mark.parametrize("name", PERMITTING)
def test_without_a_permitting_policy_something_is_kept_out(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    strict = without(name, monkeypatch, tmp_path)
    assert any(not strict.decide(ask(row)).allowed for row in ROWS if row.allowed and name in row.policies.split())


# ---------------------------------------------------------------------------------------------- what a ruling says

CLAUSES = ("5.4.2-d", "5.5", "5.6.2-a", "5.6.2-b", "5.6.2-c", "A.1.", "A.2.")


def test_policies_are_sentences_that_name_a_clause() -> None:
    for policy in AUTHORIZER.policies:
        assert policy.clause.startswith(CLAUSES), policy.id
        assert policy.says[0].isupper(), policy.id
        assert policy.says.endswith("."), policy.id
        assert 20 < len(policy.says) <= 128, policy.id
        assert len(policy.notice) <= 128, policy.id


def test_every_clause_of_the_annexes_has_a_policy() -> None:
    clauses = {policy.clause for policy in AUTHORIZER.policies}
    for clause in ("A.1.1-a", "A.1.1-b", "A.1.1-c", "A.1.2-c", "A.1.3-a", "A.1.3-b", "A.2.1-a", "A.2.1-b", "A.2.1-c"):
        assert clause in clauses
    assert {"A.2.2-a", "A.2.2-b", "A.2.3", "5.4.2-d", "5.5", "5.6.2-a", "5.6.2-b", "5.6.2-c"} <= clauses


def test_a_grant_says_rule_clause_and_sentence() -> None:
    ruling = AUTHORIZER.decide(Request(DOCTOR, VIEW, rec(INFORMED), CARE))
    sentence = "Doctors who treat the patient, by name or by group, see reports, operation records and summaries."
    assert (ruling.decision.rule, ruling.clause) == ("treatment.informed", "A.1.1-b")
    assert ruling.decision.reason == sentence
    assert ruling.policies == (Policy("treatment.informed", "permit", "A.1.1-b", sentence),)
    with pytest.raises(FrozenInstanceError):
        ruling.decision.allowed = False  # type: ignore[misc]


def test_a_refusal_says_all_that_stands_in_the_way_in_the_order_of_the_files() -> None:
    ruling = AUTHORIZER.decide(Request(PATIENT, SAVE, rec(), own(encrypted=False)))
    assert [policy.id for policy in ruling.policies] == ["keep.notice", "channel.encrypted"]
    assert ruling.decision.reason == " ".join(policy.says for policy in ruling.policies)
    assert (ruling.decision.rule, ruling.clause) == ("keep.notice", "A.2.2-b")


def test_a_refusal_by_default_says_so() -> None:
    ruling = AUTHORIZER.decide(Request(MANAGER, VIEW, rec(level=3), CARE))
    assert (ruling.allowed, ruling.decision.rule, ruling.clause) == (False, "access.no-permit", "5.6.2-c")
    assert (ruling.policies, ruling.notices) == ((), ())


def test_who_wants_to_keep_data_is_given_the_notice_first_and_again_with_the_grant() -> None:
    """A.2.2-b: the notice says that the safety of what was taken is up to whoever took it."""
    first = AUTHORIZER.decide(Request(PATIENT, DOWNLOAD, rec(), OWN))
    assert not first.allowed
    assert len(first.notices) == 1
    assert "you yourself must keep it safe" in first.notices[0]
    second = AUTHORIZER.decide(Request(PATIENT, DOWNLOAD, rec(), OWN_TOLD))
    assert second.allowed
    assert second.notices == ("You now hold a copy of your medical data. Keeping it safe is up to you.",)
    assert AUTHORIZER.decide(Request(PATIENT, QUERY, rec(), OWN)).notices == ()


def test_who_treats_an_infectious_patient_is_told_to_be_careful() -> None:
    ruling = AUTHORIZER.decide(Request(NURSE, VIEW, rec(INFORMED, infectious=True), CARE))
    assert [notice.split(":")[0] for notice in ruling.notices] == ["The patient has an infectious disease"]


def test_neither_reasons_nor_records_in_print_name_a_patient() -> None:
    record = rec(id="secret-record", patient="secret-patient")
    for principal in (DOCTOR, replace(PATIENT, id="secret-patient"), replace(GUARDIAN, id="secret-guardian")):
        for context in (CARE, OWN, Context(NOW)):
            request = Request(principal, VIEW, record, context)
            assert "secret" not in repr(AUTHORIZER.decide(request))
            assert "secret" not in repr(request)
    assert "p1" not in repr(GUARDIAN)
