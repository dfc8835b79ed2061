"""Faults between a server and its sites, over a grid of fake sites: the store of a run that goes on is that of one without."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import ROOT, tiny_settings
from fakes import FakeGrid, FakeSite, blocks
from toy import LOST, SITES, Toy

from fedprivseg.core.errors import QuorumError, SiteError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.ledger import ledger
from fedprivseg.runtime.server import exchange
from fedprivseg.runtime.server.federation import GridFederation
from fedprivseg.study.faults.network import FaultyGrid
from fedprivseg.study.run import load_scenario

ONE = "centre2"
ALWAYS = "times=1000"


class Killed(BaseException):
    """In the place of SIGKILL."""


def kill():
    raise Killed


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(exchange, "FIRST_PAUSE_S", 0.001)


def scenario(fault="", *settings):
    faults = [f"faults=[{{{fault}{'' if 'party=' in fault else f', party={ONE!r}'}}}]"] if fault else []
    stages = "stages={all={deadline_s=5, resend_s=0.05}}"
    chosen = [*tiny_settings(Path("nowhere")), "quorum=2", *settings]
    asked = load_scenario(ROOT / "simulations" / "quickstart.toml", chosen)
    # The toy's orders are those of no registered method.
    return asked.model_validate({**asked.model_dump(), **_read([stages, *faults])})


def _read(settings):
    from fedprivseg.core.toml_text import apply_settings

    return apply_settings({}, settings)


def run(folder, asked, at_once=None):
    """A run in `folder`, begun or gone on with; the sites that measured."""
    sites = [FakeSite(name, blocks(), folder / "sites") for name in SITES]
    inner = FakeGrid(Toy(), sites, folder / "sites")
    with ExitStack() as machine:
        grid = FaultyGrid(inner, asked, RunFolder(folder), machine, kill)
        federation = GridFederation(grid, asked, RunFolder(folder).server, "run", "cpu", at_once)
        return set(Toy().conduct(federation))


def kept(folder):
    """What the server stored, what it counted, and why sites left."""
    stored = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("server/codes/**/*.safetensors")}
    accounts = json.loads((folder / "server" / "accounts.json").read_text())["sites"]
    ledger.verify(folder / "server" / "ledger.jsonl")
    sizes = {name: (account["bytes_up"], account["bytes_down"]) for name, account in accounts.items()}
    left = {name: account["status"] for name, account in accounts.items() if account["status"] != "ok"}
    return stored, sizes, left


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    folder = tmp_path_factory.mktemp("right")
    assert run(folder, scenario()) == {*SITES}
    return kept(folder)


ONCE = {
    **{f"{kind}, {when}, {action}": f'kind="{kind}", when="{when}", action="{action}"'
       for kind in ("kill", "drop") for when in ("before", "after") for action in ("describe", "fit", "send_masks", "measure")},
    **{kind: f'kind="{kind}", action="send_images"'
       for kind in ("error", "duplicate", "reorder", "truncate", "corrupt", "replay", "impersonation")},
    "delay": 'kind="delay", seconds=0.2, action="send_images", number=1',
    "duplicate, always": f'kind="duplicate", action="send_images", {ALWAYS}',
    "reorder, always": f'kind="reorder", action="send_images", {ALWAYS}',
}  # fmt: skip


@pytest.mark.parametrize("at_once", [None, 1], ids=["together", "one by one"])
@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE)
def test_what_happens_once_changes_nothing(fault, at_once, right, tmp_path):
    assert run(tmp_path, scenario(fault), at_once) == {*SITES}
    assert kept(tmp_path) == right
    assert (tmp_path / "faults" / "0").read_text().isdigit(), "and it did happen"


FOR_GOOD = {
    "kill": ('kind="kill", action="fit"', "died in 'fit' (Flower error code 8)"),
    "error": ('kind="error", code=5, action="fit"', "died in 'fit' (Flower error code 5)"),
    "drop": ('kind="drop", action="fit"', "gave no answer to 'fit' within 5 s"),
    "corrupt": ('kind="corrupt", action="send_images"', "refused at the intake in 'send_images': bad signature"),
    "truncate": ('kind="truncate", action="send_images"', "refused at the intake in 'send_images': bad signature"),
    "replay": ('kind="replay", action="send_images"', "refused at the intake in 'send_images': bad signature"),
    "impersonation": (
        'kind="impersonation", action="fit"',
        "refused at the intake in 'fit': its reply names another site",
    ),
}


@pytest.mark.parametrize(("fault", "says"), FOR_GOOD.values(), ids=FOR_GOOD)
def test_what_does_not_end_costs_its_site_and_nobody_else(fault, says, right, tmp_path):
    assert run(tmp_path, scenario(f"{fault}, {ALWAYS}")) == {*SITES} - {ONE}
    stored, sizes, left = kept(tmp_path)
    assert [*left] == [ONE]
    assert left[ONE].startswith(says)
    assert {path: body for path, body in stored.items() if ONE not in path} == {
        path: body for path, body in right[0].items() if ONE not in path
    }
    assert all(sizes[site] == right[1][site] for site in SITES if site != ONE)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("action", ["describe", "fit", "send_images", "send_masks", "measure"])
def test_a_server_that_dies_goes_on_and_loses_nothing(action, when, right, tmp_path):
    asked = scenario(f'kind="kill", party="server", action="{action}", when="{when}"')
    with pytest.raises(Killed):
        run(tmp_path, asked)
    path = tmp_path / "server" / "ledger.jsonl"
    before = [line.hash for line in ledger.read(path)]
    assert run(tmp_path, asked) == {*SITES}
    assert kept(tmp_path) == right
    assert [line.hash for line in ledger.read(path)][: len(before)] == before


def test_a_quorum_is_that_of_the_stage(tmp_path):
    dead = f'kind="kill", action="measure", {ALWAYS}'
    with pytest.raises(QuorumError, match="2 of 3 sites remain, the quorum is 3"):
        run(tmp_path / "all", scenario(dead, "quorum=2").model_copy(update={"stages": _stages(measure={"quorum": 3})}))
    lower = scenario(dead, "quorum=3").model_copy(update={"stages": _stages(measure={"quorum": 2})})
    assert run(tmp_path / "two", lower) == {*SITES} - {ONE}


def _stages(**stages):
    from fedprivseg.core.stage_config import StageConfig

    return {name: StageConfig.model_validate(stage) for name, stage in stages.items()}


def _federation(folder, asked):
    sites = [FakeSite(name, blocks(), folder / "sites") for name in SITES]
    grid = FaultyGrid(FakeGrid(Toy(), sites, folder / "sites"), asked, RunFolder(folder), ExitStack(), kill)
    return GridFederation(grid, asked, RunFolder(folder).server, "run", "cpu")


def test_a_site_that_comes_back_takes_part_again_if_the_scenario_says_so(tmp_path):
    asked = scenario('kind="kill", action="fit", times=3', "rejoin=next-round")
    federation = _federation(tmp_path, asked)
    assert federation.returned() == ()
    assert set(federation.ask("fit", LOST)) == {*SITES} - {ONE}
    assert federation.returned() == (ONE,)
    assert federation.sites == SITES
    assert set(federation.ask("fit", LOST)) == {*SITES}
    (note,) = federation.accounts[ONE].notes
    assert note == "was away, and took part again: died in 'fit' (Flower error code 8)"


def test_a_site_that_is_still_away_or_was_caught_does_not_come_back(tmp_path):
    dead = scenario(f'kind="kill", action="describe", {ALWAYS}', "rejoin=next-round")
    assert _federation(tmp_path / "dead", dead).returned() == ()
    caught = scenario(f'kind="corrupt", action="fit", {ALWAYS}', "rejoin=next-round")
    federation = _federation(tmp_path / "caught", caught)
    federation.ask("fit", LOST)
    assert federation.sites == ("centre1", "centre3")
    assert federation.returned() == ()
    as_today = _federation(tmp_path / "today", scenario(f'kind="kill", action="fit", {ALWAYS}'))
    as_today.ask("fit", LOST)
    assert as_today.returned() == ()


def test_a_run_without_any_site_ends_with_all_reasons(tmp_path):
    faults = [{"kind": "kill", "party": site, "action": "fit", "times": 1000} for site in SITES]
    asked = scenario()
    with pytest.raises(SiteError, match="every site failed: site 'centre1' died in 'fit'"):
        run(tmp_path, asked.model_validate({**asked.model_dump(), "faults": faults}))
