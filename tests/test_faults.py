"""Faults of the rules at one site in mid-run: it releases nothing more, the run says so, and the others finish."""

from __future__ import annotations

import pytest
from conftest import ROOT, tiny_settings

from fedprivseg.core.errors import LedgerError
from fedprivseg.core.kinds import WEIGHTS
from fedprivseg.core.records import digest
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.governance.policy import gate as gate_module
from fedprivseg.runtime.site import client_app as site_app
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.study.run import load_scenario, simulate

SITES = ("centre1", "centre2")
SETTINGS = [
    f"sites={list(SITES)}",
    "method.name=fedavg",
    'method.variant=""',
    "method.parameters={rounds=1, local_steps=1}",
    "study.today=2026-03-01",
    "study.agreement={start=2026-01-01, end=2026-12-31}",
    'policy.restrict.all={profile="open-research", agreement="required"}',
]
SECRET = "patient A1B2C3 has intensity 1234"


def run(phantom, folder):
    scenario = load_scenario(ROOT / "simulations/policy-open.toml", [*tiny_settings(phantom), *SETTINGS])
    result = simulate(scenario, folder)
    return {site: account.status for site, account in result.sites.items()}


def _replaced(path):
    """Root reads and writes files of any mode: a folder in its place can be read and written by nobody."""
    path.unlink()
    path.mkdir()


def _in_training(damage):
    """A fault that comes while centre1 carries out the order to train, after it has released its counts."""

    def install(monkeypatch):
        carry_out = site_app._carry_out

        def carried_out(site, order):
            payload = carry_out(site, order)
            if site.name == "centre1" and order.action == "train":
                damage(site.folder.path)
            return payload

        monkeypatch.setattr(site_app, "_carry_out", carried_out)

    return install


def _rule(action):
    """A rule of the gate that does `action` to the weights of centre1."""

    def install(monkeypatch):
        clock = Clock()

        def rule(gate, payload):
            if gate.site == "centre1" and payload.kind == WEIGHTS:
                action(clock)

        monkeypatch.setattr(gate_module, "time", clock)
        monkeypatch.setattr(gate_module, "RULES", (*gate_module.RULES, ("test", "", rule)))

    return install


class Clock:
    """A clock that a test sets: no test waits for half a minute."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def _raise(clock):
    raise ValueError(SECRET)


def _hang(clock):
    clock.now += gate_module.PATIENCE_S + 0.001


def _linger(clock):
    clock.now += gate_module.PATIENCE_S - 0.001


def _engine(monkeypatch):
    training: list[str] = []
    _in_training(lambda home: training.append(home.name))(monkeypatch)
    policy_context = SiteContext.policy_context

    def failing(site, card=""):
        if site.name in training:
            raise RecursionError(SECRET)
        return policy_context(site, card)

    monkeypatch.setattr(SiteContext, "policy_context", failing)


def _full(monkeypatch):
    append = Ledger.append

    def failing(own, event, facts):
        if own.site == "centre1" and facts.get("kind") == "weights":
            raise LedgerError(SECRET)
        return append(own, event, facts)

    monkeypatch.setattr(Ledger, "append", failing)


FAULTS = {
    "a rule raises": (_rule(_raise), "gate.fault"),
    "a rule takes too long": (_rule(_hang), "gate.timeout"),
    "the rules fail as a whole": (_engine, "policy.absent"),
    "the policy is gone": (_in_training(lambda home: (home / "policy.toml").unlink()), "policy.absent"),
    "the policy cannot be read": (_in_training(lambda home: _replaced(home / "policy.toml")), "policy.absent"),
    "the policy is garbage": (_in_training(lambda home: (home / "policy.toml").write_bytes(b"\xff\x00=")), "policy.absent"),
    "the agreement is garbage": (_in_training(lambda home: (home / "agreement.json").write_text("{")), "agreement.unreadable"),
    "the agreement is gone": (_in_training(lambda home: (home / "agreement.json").unlink()), "agreement.absent"),
    "the enrolment is garbage": (_in_training(lambda home: (home / "intake.json").write_text("[")), "records.unreadable"),
    "the ledger cannot be opened": (_in_training(lambda home: _replaced(home / "ledger.jsonl")), "ledger.unwritable"),
    "the ledger was cut": (_in_training(lambda home: (home / "ledger.jsonl").write_bytes(b"")), "ledger.unwritable"),
    "the ledger cannot be written": (_full, "ledger.unwritable"),
}  # fmt: skip


@pytest.mark.parametrize(("install", "rule"), FAULTS.values(), ids=FAULTS)
def test_a_fault_at_one_site_blocks_that_site_alone_and_releases_nothing(install, rule, phantom, tmp_path, monkeypatch):
    install(monkeypatch)
    folder = tmp_path / "run"
    statuses = run(phantom, folder)
    assert statuses["centre1"].startswith(f"blocked by site policy in 'train' ({rule})")
    assert not any(word in statuses["centre1"] for word in ("A1B2C3", "1234", str(tmp_path)))
    assert statuses["centre2"] == "ok"
    for site in SITES:
        path, stored = (
            folder / "sites" / site / "ledger.jsonl",
            list((folder / "server/codes" / site).rglob("*.safetensors")),
        )
        assert (site == "centre1") == (not stored)
        if site != "centre1":
            permitted = {line.facts["digest"] for line in ledger.read(path) if line.event == "release"}
            assert all(digest(one.read_bytes()) in permitted for one in stored)
    receipts = [line.facts for line in ledger.read(folder / "server/ledger.jsonl") if line.event == "receipt"]
    own = [(facts["action"], "digest" in facts) for facts in receipts if facts["site"] == "centre1"]
    assert own == [("describe", True), ("train", False)], "the server has its counts, and no weights"
    assert not (folder / "server/metrics/centre1.safetensors").exists()


def test_a_rule_that_is_slow_but_in_time_decides(phantom, tmp_path, monkeypatch):
    _rule(_linger)(monkeypatch)
    assert set(run(phantom, tmp_path / "run").values()) == {"ok"}


def test_an_agreement_that_cannot_be_read_from_the_start_blocks_its_site(phantom, tmp_path, monkeypatch):
    from fedprivseg.study import run as module

    provision_sites = module.provision_sites

    def damaged(folder, *rest):
        provision_sites(folder, *rest)
        (folder / "sites/centre1/agreement.json").write_text("no agreement")

    monkeypatch.setattr(module, "provision_sites", damaged)
    statuses = run(phantom, tmp_path / "run")
    assert (
        "in 'describe' (agreement.unreadable): The data-use agreement at this site cannot be read"
        in statuses["centre1"]
    )
    refusals = [line for line in ledger.read(tmp_path / "run/sites/centre1/ledger.jsonl") if line.event == "refusal"]
    assert [line.facts["clause"] for line in refusals] == ["5.3.2-a"]
    assert statuses["centre2"] == "ok"
