"""A server that crafts weights: a site does not train on them, says by which rule, and two ledgers show a second model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_settings

from fedprivseg.core.errors import QuorumError
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.checkpoints import equivocations
from fedprivseg.methods import rounds
from fedprivseg.runtime.server import federation
from fedprivseg.study.run import load_scenario, simulate

SITES = ("centre1", "centre2", "centre3")


@pytest.fixture
def scenario(phantom, quickstart):
    settings = ["engine=inline", "method.name=fedavg", "method.variant=default", "quorum=2"]
    settings += ["method.parameters={rounds=2, local_steps=1, curve_points=0, test_views=1}"]
    return load_scenario(quickstart, [*tiny_settings(phantom), *settings])


def _contradictions(folder):
    return equivocations(ledger.read(folder / "server" / "ledger.jsonl"), _lines(folder))


def _lines(folder):
    return {site: ledger.read(folder / "sites" / site / "ledger.jsonl") for site in SITES}


def test_honest_rounds_leave_one_digest_an_order_at_every_site(scenario, tmp_path):
    result = simulate(scenario, tmp_path / "run")
    assert {site.status for site in result.sites.values()} == {"ok"}
    models = {}
    for lines in _lines(tmp_path / "run").values():
        for line in lines:
            if line.event == "release" and line.facts["action"] in ("train", "measure"):
                models.setdefault((line.facts["action"], line.facts["number"]), []).append(line.facts["model"])
    assert {order: len(found) for order, found in models.items()} == {
        ("train", 1): 3,
        ("train", 2): 3,
        ("measure", 0): 3,
    }
    assert len({model for found in models.values() for model in found}) == 3
    assert _contradictions(tmp_path / "run") == ()


def test_dead_weights_for_one_site_are_refused_there_and_show_in_the_ledgers(scenario, tmp_path, monkeypatch):
    packed = rounds.packed

    def crafted(given, arrays, extra, number):
        sent = packed(given, arrays, extra, number)
        if number == 2 and "centre2" in sent:
            dead = {name: np.zeros_like(value) for name, value in sent["centre2"].arrays.items()}
            sent["centre2"] = replace(sent["centre2"], arrays=dead)
        return sent

    monkeypatch.setattr(rounds, "packed", crafted)
    result = simulate(scenario, tmp_path / "run")
    assert "(model.dead-units)" in result.sites["centre2"].status
    assert {result.sites[site].status for site in ("centre1", "centre3")} == {"ok"}
    lines = _lines(tmp_path / "run")
    (refusal,) = [line for line in lines["centre2"] if line.event == "refusal"]
    assert (refusal.facts["rule"], refusal.facts["action"], refusal.facts["number"]) == ("model.dead-units", "train", 2)
    assert refusal.facts["clause"]
    (found,) = _contradictions(tmp_path / "run")
    assert "'train' 2 the server sent centre1 and centre2 different models" in found


def test_weights_that_were_not_announced_are_trained_on_nowhere(scenario, tmp_path, monkeypatch):
    monkeypatch.setattr(federation, "announce", lambda *_: "")
    with pytest.raises(QuorumError, match="not-announced"):
        simulate(scenario, tmp_path / "run")
    assert {line.event for lines in _lines(tmp_path / "run").values() for line in lines} >= {"refusal"}
