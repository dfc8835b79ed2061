"""Faults in whole runs: what the run does, what it says, with which status it ends, and its numbers."""

from __future__ import annotations

import json
import os

import pytest
from conftest import ROOT, tiny_settings
from fault_cases import CASES, FEDAVG, SITE, Killed, carry_out, settings_of

from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.stage_config import Terms
from fedprivseg.governance.ledger import ledger
from fedprivseg.study.run import load_scenario


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """No ledger has to outlive a power cut here, and a server that is killed does not take the tests along."""

    def kill(pid, number):
        raise Killed

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "kill", kill)


@pytest.fixture(scope="module")
def right(phantom, tmp_path_factory):
    """What runs without faults come to, by their settings."""
    found = {}

    def numbers(base):
        if base not in found:
            found[base] = carry_out(tmp_path_factory.mktemp("right") / "run", phantom, list(base), apart=False)
            assert not found[base].left
        return found[base].numbers

    return numbers


REALLY = ("the server dies after a shard",)
"""Of the deaths of a server, those that are a signal to a process."""

IN_FULL = (
    "a site dies after it trained",
    "a site stays dead, and all are needed",
    "a shard is changed",
    "oversize",
    "a poisoned update",
    "poisoned codes, left out by rule",
    "a site's disk is full",
    "a site's clock jumps",
    "the server's disk is full",
    "the server's clock jumps back",
    "the server dies before measure",
    *REALLY,
)
"""Those that are tried with real sites here, since each takes seconds; `test_network` has more, and the table all."""


@pytest.mark.parametrize("name", IN_FULL)
def test_what_becomes_of_a_run(name, right, phantom, tmp_path):
    case, folder = CASES[name], tmp_path / "run"
    expected = right(case.base)
    first = carry_out(folder, phantom, settings_of(case), apart=name in REALLY)
    assert first.status == case.status, first.said
    assert case.says in first.said
    last = first
    if case.again is not None:
        assert not (folder / "result.json").exists()
        came = receipts(folder)
        last = carry_out(folder, phantom, settings_of(case), apart=False)
        assert last.status == 0, last.said
        assert receipts(folder)[: len(came)] == came, "nothing that was acknowledged is lost"
    if case.status and case.again is None:
        assert not (folder / "result.json").exists()
        return
    assert set(last.left) == set(case.left)
    assert not case.notes or any(case.notes in note for note in last.notes)
    for site, why in case.left.items():
        assert why in last.left[site]
    assert (last.numbers == expected) == case.same
    assert any(note.startswith("simulated fault: ") and "did not happen" not in note for note in last.notes)
    ledger.verify(folder / "server" / "ledger.jsonl")
    if case.same:
        counted(folder, case)


def receipts(folder):
    """The payloads that the server has acknowledged."""
    path = folder / "server" / "ledger.jsonl"
    lines = ledger.read(path) if path.exists() else []
    return [line.facts["digest"] for line in lines if line.event == "receipt" and "digest" in line.facts]


def counted(folder, case):
    """Bytes count once, however often they came: as many as the largest payloads of each order."""
    sites = json.loads((folder / "result.json").read_text())["sites"]
    if "fedavg" in " ".join(case.base):
        assert len({site["bytes_up"] for site in sites.values()}) == 1
        assert len({site["bytes_down"] for site in sites.values()}) == 1


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('faults=[{kind="nan", party="server", action="train"}]', "the server has no fault 'nan'"),
        ('faults=[{kind="kill", party="centre9", action="train"}]', "faults name the party 'centre9'"),
        (
            f'faults=[{{kind="kill", party="{SITE}", action="trian"}}]',
            "fedavg gives no order 'trian' (did you mean 'train'",
        ),
        ("stages.trian={quorum=1}", "stages.trian: fedavg gives no order 'trian' (did you mean 'train'"),
        ("stages.train={quorum=4}", "stages.train.quorum is 4 but the scenario has 3 sites"),
        ("stages.train={attempts=0}", "attempts"),
    ],
)
def test_faults_and_stages_that_cannot_be_are_refused(phantom, setting, says):
    with pytest.raises(ScenarioError) as refused:
        load_scenario(ROOT / "simulations" / "quickstart.toml", [*tiny_settings(phantom), *FEDAVG, setting])
    assert says in str(refused.value)


def test_terms_are_those_of_the_action_over_those_for_all_over_the_scenarios(phantom):
    stated = ["quorum=2", "deadline_s=50", "stages.all={attempts=5, quorum=3}", "stages.measure={quorum=1}"]
    found = load_scenario(ROOT / "simulations" / "quickstart.toml", [*tiny_settings(phantom), *stated])
    assert found.terms("fit_encoders") == Terms(50.0, 3, attempts=5)
    assert found.terms("measure") == Terms(50.0, 1, attempts=5)
