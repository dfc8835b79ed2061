"""A study whose processes are killed, and whose network is cut: it ends with the same numbers, and each byte counted once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import BRIEF, tiny_settings

from fedprivseg.runtime.deployment import terminator
from fedprivseg.runtime.deployment.processes import stop_all

pytestmark = [pytest.mark.xdist_group("deployment"), pytest.mark.timeout(1800)]  # also on a busy machine

ROUNDS = ["rounds=3", "local_steps=2", "curve_points=1", "test_views=1"]


@pytest.fixture(scope="module")
def settings(phantom):
    """Averaging over three rounds: many orders, and what is asked twice would show in the bytes."""
    fedavg = ["method.name=fedavg", "method.variant=default", "method.parameters={}"]
    return [*tiny_settings(phantom), *BRIEF, *fedavg, *(f"method.parameters.{each}" for each in ROUNDS)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, quickstart, settings):
    from fedprivseg.study.run import load_scenario, simulate

    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return simulate(load_scenario(quickstart, settings), folder), folder


class Study:
    """The same study between processes of its own, of which a test kills what it likes."""

    def __init__(self, stack, folder, scenario):
        from fedprivseg.runtime.deployment.operator_side import init
        from fedprivseg.runtime.deployment.processes import free_ports
        from fedprivseg.runtime.deployment.service import start_superlink
        from fedprivseg.runtime.deployment.superlink import Link
        from fedprivseg.runtime.engines.deployment import LOOPBACK, join

        self.stack, self.folder, self.scenario = stack, folder, scenario
        self.children, self.server = [], None
        stack.callback(stop_all, self.children)
        self.kit, self.hospitals = init(folder / "kit", scenario, (LOOPBACK,), *free_ports(2))
        for each in self.hospitals.values():
            join(self.kit, each)
        terminator.write_configuration(self.kit, LOOPBACK)
        self._start = lambda: start_superlink(self.kit)
        self.link = self._keep(self._start())
        self.calls = stack.enter_context(Link(self.kit))
        self.until(lambda: self.calls.answers)
        self.calls.register()
        self.front = self.begin_terminator()
        self.nodes = {site: self.begin_node(site) for site in self.hospitals}

    def begin(self):
        """Hospitals and server with nothing done yet."""
        from fedprivseg.core.runfolder import RunFolder
        from fedprivseg.imaging.datasets import dataset_of
        from fedprivseg.study.preflight import cohorts_of
        from fedprivseg.study.prepare_start import prepare_start
        from fedprivseg.study.run import _prepare, _read, release_folder

        run, self.server = self.folder / "run", None
        shutil.rmtree(run, ignore_errors=True)
        release = release_folder(self.scenario)
        found = _read(dataset_of(self.scenario.data, release), release)
        _prepare(run, self.scenario, release, cohorts_of(self.scenario, found.subjects))
        prepare_start(self.scenario, RunFolder(run).server)

    def _keep(self, child):
        self.children.append(child)
        return child

    def begin_terminator(self):
        from fedprivseg.runtime.deployment.processes import Child, environment

        log = self.kit.logs / "terminator.log"
        return self._keep(Child("terminator", terminator.command(self.kit), log, environment(self.kit.flower)))

    def begin_superlink(self):
        self.link = self._keep(self._start())

    def begin_node(self, site):
        from fedprivseg.runtime.engines.deployment import start_node

        station = self.folder / "run" / "sites" / site / "station.json"
        return self._keep(start_node(self.hospitals[site], station, "fedprivseg.study.simulated_client:app"))

    def submit(self):
        """The server's half, as a process of its own."""
        code = (
            "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
            "from pathlib import Path\n"
            "from fedprivseg.runtime.deployment.kit import ServerKit\n"
            "from fedprivseg.runtime.deployment.submission import submit\n"
            "from fedprivseg.runtime.server.server_app import app\n"
            "submit(ServerKit(Path(sys.argv[1])), Path(sys.argv[2]), app)\n"
        )
        command = [sys.executable, "-c", code, str(self.kit.path), str(self.folder / "run")]
        with (self.folder / "submit.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        self.server = process
        return process

    def until(self, ready, seconds=500.0):
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, self.told()
            assert self.server is None or self.server.poll() is None, self.told()
            time.sleep(0.02)

    def rounds(self):
        """How many orders the server's ledger tells to have been answered."""
        path = self.folder / "run" / "server" / "ledger.jsonl"
        return path.read_text().count('"event":"receipt"') if path.exists() else 0

    def told(self):
        found = [self.folder / "submit.log", self.kit.logs / "superlink.log", *self.folder.rglob("node.log")]
        return "\n".join(f"--- {path}\n{path.read_text()[-1500:]}" for path in found if path.exists())


@pytest.fixture(scope="module")
def consortium(nginx, tmp_path_factory, quickstart, settings):
    """Processes that outlive the tests: a site's program reads all that it knows from its folder, order by order."""
    from fedprivseg.study.run import load_scenario

    with ExitStack() as stack:
        yield Study(
            stack, tmp_path_factory.mktemp("study"), load_scenario(quickstart, [*settings, "engine=deployment"])
        )


@pytest.fixture
def study(consortium):
    """The study from its beginning."""
    consortium.begin()
    yield consortium
    consortium.calls.stop_runs()


def _same(study, undisturbed):
    """The same numbers, and each byte counted once."""
    result, folder = undisturbed
    run = study.folder / "run"
    for path in ["server/model.safetensors", *(f"server/metrics/{site}.safetensors" for site in result.sites)]:
        assert (run / path).read_bytes() == (folder / path).read_bytes(), path
    accounts = json.loads((run / "server" / "accounts.json").read_text())["sites"]
    for site, told in result.sites.items():
        assert accounts[site]["status"] == "ok", study.told()
        assert (accounts[site]["bytes_up"], accounts[site]["bytes_down"]) == (told.bytes_up, told.bytes_down), site


def test_a_supernode_is_killed_and_started_again(study, undisturbed):
    server = study.submit()
    study.until(lambda: study.rounds() >= 4)
    os.killpg(study.nodes["centre2"].pid, signal.SIGKILL)
    study.nodes["centre2"] = study.begin_node("centre2")
    assert server.wait(800) == 0, study.told()
    _same(study, undisturbed)


def test_the_superlink_is_killed_and_started_again_on_its_database(study, undisturbed):
    server = study.submit()
    study.until(lambda: study.rounds() >= 4)
    os.killpg(study.link.pid, signal.SIGKILL)
    study.begin_superlink()
    assert server.wait(800) == 0, study.told()
    _same(study, undisturbed)


def test_the_servers_program_is_killed_and_submitted_again(study, undisturbed):
    server = study.submit()
    study.until(lambda: study.rounds() >= 4)
    server.kill()
    server.wait()
    assert study.submit().wait(800) == 0, study.told()
    _same(study, undisturbed)


def test_the_network_is_cut(study, undisturbed):
    """For some seconds: longer than an order takes, so that answers have to wait for it."""
    server = study.submit()
    study.until(lambda: study.rounds() >= 4)
    study.front.stop()
    time.sleep(float(os.environ.get("FEDPRIVSEG_CUT_S", "5")))
    study.front = study.begin_terminator()
    assert server.wait(800) == 0, study.told()
    _same(study, undisturbed)


def test_a_study_that_somebody_stops_is_not_submitted_again(study):
    server = study.submit()
    study.until(lambda: study.rounds() >= 4)
    assert study.calls.stop_runs() == 1
    assert server.wait(500) == 1
    assert "was stopped" in Path(study.folder / "submit.log").read_text()
