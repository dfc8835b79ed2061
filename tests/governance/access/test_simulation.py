"""Trials: drawn requests are decided as the policies say, the same seed gives the same, and the counts add up."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hospital import TODAY, hold, hospital

from fedprivseg.core.errors import LedgerError, RequestError
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.simulation import Mixture, as_json, record, simulate
from fedprivseg.governance.ledger import ledger

NOW = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return hospital(tmp_path_factory.mktemp("run"), subjects=20)


@pytest.fixture(scope="module")
def trial(home):
    return simulate(home, 600, 0, now=NOW, today=TODAY)


def again(home, requests=600, seed=0, **shares):
    return simulate(home, requests, seed, now=NOW, today=TODAY, mixture=replace(Mixture(), **shares))


def test_the_counts_add_up(trial):
    assert sum(allowed + denied for allowed, denied in trial.asked.values()) == trial.requests == 600
    assert 0 < trial.allowed < 600
    for (role, level), (allowed, denied) in trial.asked.items():
        mine = [cell for cell in trial.cells if (cell.role, cell.level) == (role, level)]
        for word, total in ((True, allowed), (False, denied)):
            counts = [cell.count for cell in mine if cell.allowed is word]
            # Each request counts once under each clause that decided on it: none above all, all together at least all.
            assert max(counts, default=0) <= total <= sum(counts)
    assert {role for role, _ in trial.asked} == {
        *("chief", "attending", "resident", "nurse", "researcher", "data-manager"),
        *("patient", "guardian", "child"),
    }


def test_whoever_decides_is_a_policy_that_says_why(trial):
    known = {policy.id: policy for policy in CedarAuthorizer().policies}
    for each in trial.deciding:
        if each.policy == "access.no-permit":
            assert not each.allowed
        else:
            policy = known[each.policy]
            assert (each.clause, each.says) == (policy.clause, policy.says)
            assert each.allowed == (policy.effect == "permit")
    assert trial.policies == len(known)
    assert 0 < trial.median_ms <= trial.p99_ms


def test_the_same_seed_decides_the_same_and_another_draws_others(home, trial):
    one, other = again(home), again(home, seed=1)
    assert (one.decisions_sha256, one.cells, one.asked) == (trial.decisions_sha256, trial.cells, trial.asked)
    assert other.decisions_sha256 != one.decisions_sha256


@pytest.mark.parametrize(
    ("shares", "rule"),
    [
        ({"signed_in": 0.0}, "trust.unauthenticated"),
        ({"encrypted": 0.0}, "channel.encrypted"),
        ({"fresh": 0.0}, "trust.stale"),
    ],
)
def test_a_share_of_none_lets_nobody_through(home, shares, rule):
    """The mixture is what is drawn: 100 requests, all of them without what each of them needs."""
    found = again(home, 100, **shares)
    assert found.allowed == 0
    assert {each.policy: each.count for each in found.deciding}[rule] == 100


@pytest.mark.parametrize("name", [each.name for each in fields(Mixture)])
def test_every_share_of_the_mixture_changes_what_is_decided(home, name):
    never, always = (again(home, 120, **{name: share}).decisions_sha256 for share in (0.0, 1.0))
    assert never != always


def test_a_hospitals_own_policy_shows_in_its_trial(home, trial):
    (home / "cedar").mkdir()
    try:
        (home / "cedar" / "house.cedar").write_text(
            '@id("hospital.no-research") @clause("house rule 1") @says("This house takes part in no research.")\n'
            'forbid (principal, action in Action::"study", resource);'
        )
        narrowed = again(home)
        assert narrowed.allowed < trial.allowed
        assert narrowed.policies == trial.policies + 1
        assert "hospital.no-research" in {each.policy for each in narrowed.deciding}
        (home / "cedar" / "house.cedar").write_text("what is this")
        closed = again(home, 50)
        assert (closed.allowed, closed.policies, closed.policy_set) == (0, 0, "")
        assert [each.policy for each in closed.deciding] == ["access.fault"]
    finally:
        (home / "cedar" / "house.cedar").unlink()
        (home / "cedar").rmdir()


def test_a_trial_leaves_one_line_that_names_all_its_decisions(home, trial):
    line = record(home, trial)
    assert (line.event, line.facts["what"], line.facts["requests"]) == ("access", "simulation", 600)
    assert line.facts["permitted"] + line.facts["denied"] == 600
    assert line.facts["decisions_sha256"] == trial.decisions_sha256
    assert (
        f"keep.right: {next(each.count for each in trial.deciding if each.policy == 'keep.right')}"
        in line.facts["rules"]
    )
    ledger.verify(home / "ledger.jsonl")
    assert as_json(trial)["allowed"] == trial.allowed


def test_a_trial_that_cannot_be_recorded_or_drawn_is_refused(tmp_path):
    home = hospital(tmp_path)
    trial = simulate(home, 1, 0, now=NOW, today=TODAY)
    (home / "ledger.jsonl").mkdir()
    with pytest.raises(LedgerError):
        record(home, trial)
    with pytest.raises(RequestError, match="from 1 to 1000000 requests"):
        simulate(home, 0, 0, now=NOW)
    hold(home)
    with pytest.raises(RequestError, match="nothing to draw from"):
        simulate(home, 1, 0, now=NOW)
