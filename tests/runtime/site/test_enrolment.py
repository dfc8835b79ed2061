"""Who is enrolled at a site: who withdrew is not used on any basis, and what is lost of the records opens nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest
from small_run import INTAKE_DAY, PLAIN, SUBJECT, small_run

from fedprivseg.core.kinds import STATUS
from fedprivseg.core.records import Subject
from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.governance.lifecycle.withdrawal import withdraw
from fedprivseg.governance.policy.consent import Consent, Duo, write_register
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.imaging.splits import Cohort
from fedprivseg.runtime.site.site_context import SiteContext

AGREED = Consent(
    subject=SUBJECT,
    purposes=frozenset({Duo.GENERAL_RESEARCH}),
    diseases=frozenset(),
    range=frozenset({"cine-mri"}),
    sharing=True,
    valid_from=date(2020, 1, 1),
    valid_until=None,
    withdrawn=None,
    channel="clinic",
    source="clinic",
)
TODAY = date(2026, 3, 1)


@pytest.fixture
def home(phantom, tmp_path):
    """The folder of a site that relies on the licence of a release and enrolled one subject."""
    return small_run(tmp_path / "run", phantom, PLAIN) / "sites/centre1"


def site(home):
    return SiteContext(SiteConfiguration.read(home / "station.json"), read_scenario(home.parents[1]))


def admitted(home, disease=""):
    one = Subject(
        SUBJECT, 1, "train", True, {"ED": 0, "ES": 1}, home / "image", None, ("LV", "MYO", "RV"), {"disease": disease}
    )
    return [each.code for each in site(home).admit(Cohort((one,), ())).train]


def objection(home):
    decision = site(home).policy_context().objection(STATUS, "describe")
    return None if decision is None else decision.rule


def test_a_licence_stands_for_consent_but_not_for_consent_that_was_withdrawn(home):
    assert (admitted(home), objection(home)) == ([SUBJECT], None)
    write_register(SiteFolder(home).register, [AGREED])
    assert (admitted(home), objection(home)) == ([SUBJECT], None)
    write_register(SiteFolder(home).register, [replace(AGREED, withdrawn=TODAY)])
    assert objection(home) == "consent.no-longer-valid"
    assert admitted(home) == []
    write_register(SiteFolder(home).register, [replace(AGREED, withdrawn=date(2026, 3, 2))])
    assert admitted(home) == [SUBJECT], "a withdrawal counts from its day on"


def test_who_withdrew_stays_out_although_the_register_forgets_it_until_they_agree_again(home):
    write_register(SiteFolder(home).register, [AGREED])
    assert admitted(home) == [SUBJECT]
    withdraw(home.parents[1], "centre1", SUBJECT)
    write_register(SiteFolder(home).register, [AGREED])
    assert admitted(home) == []
    (SiteFolder(home).register).unlink()
    assert admitted(home) == []
    write_register(SiteFolder(home).register, [replace(AGREED, valid_from=TODAY)])
    assert admitted(home) == [], "on the day of the withdrawal it is not known what came first"
    write_register(SiteFolder(home).register, [replace(AGREED, valid_from=date(2026, 3, 2))])
    assert admitted(home) == [SUBJECT]


def test_nobody_is_enrolled_under_a_ledger_that_cannot_be_read(home):
    path = home / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b"{}\n")
    assert admitted(home) == []
    assert json.loads((home / "intake.json").read_text())["facts"]["refused"] == ["ledger.unreadable: 1"]
    path.unlink()
    path.mkdir()
    assert admitted(home) == []
    assert not site(home).closed, "the gate itself refuses what it cannot record"


def test_a_withdrawal_does_not_begin_the_term_of_retention_again(home):
    """The ledger's first intake was on 1 January, the site is open to 1 January 2027 (365 days); the study is on 1 March."""
    write_register(SiteFolder(home).register, [AGREED])
    withdraw(home.parents[1], "centre1", SUBJECT)
    admitted(home)
    assert json.loads((home / "intake.json").read_text())["facts"]["day"] == "2026-01-01"
    assert site(home).policy_context().enrolled.since == INTAKE_DAY


@pytest.mark.parametrize("content", [b"", b"\xff", b"no register"])
def test_a_register_that_cannot_be_read_may_hold_a_withdrawal(content, home):
    assert admitted(home) == [SUBJECT]
    (SiteFolder(home).register).write_bytes(content)
    assert objection(home) == "consent.no-longer-valid"
    assert admitted(home) == []


def test_a_record_of_the_intake_that_is_gone_closes_the_site(home):
    admitted(home)
    assert not site(home).closed
    (home / "intake.json").unlink()
    assert site(home).closed
    assert objection(home) == "records.unreadable"
    (home / "cohort.json").unlink()
    assert not site(home).closed, "nobody takes part: whoever does is enrolled again"


@pytest.mark.parametrize("spelled", ["HCM", "hcm", " Hcm "])
def test_a_disease_is_special_however_a_policy_spells_it(spelled, home):
    policy = home / "policy.toml"
    policy.write_text(policy.read_text().replace("special_diseases = []", f'special_diseases = ["{spelled}"]'))
    admitted(home, disease="HCM")
    assert site(home).policy_context().enrolled.special
