"""The engines: the same bits on both, and what becomes of a site that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import BRIEF, tiny_settings
from safetensors.numpy import load_file

from fedprivseg.core.records import Payload
from fedprivseg.core.results import read_result
from fedprivseg.study.run import load_scenario, simulate

# These tests look at what Ray leaves running on this machine, and kill some of it: one after another, never side by side.
pytestmark = pytest.mark.xdist_group("ray")


def _settings(release, engine, *more):
    return [*tiny_settings(release), f"engine={engine}", "resources.cpus=2", "resources.sites_at_once=2", *BRIEF, *more]


def _ray_processes() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        # Its agents and monitors are Python: the interpreter, perhaps an option, then a file of Ray's.
        if words[0].startswith(b"ray::") or any(b"/site-packages/ray/" in word for word in words[:3]):
            found.add(path.parent.name)
    return found


def _run(scenario, folder, cache, settings):
    """Run in a process of its own, as a user has it: Ray leaves warnings about its children behind in this one."""
    command = [sys.executable, "-m", "fedprivseg.cli", "run", str(scenario), "--out", str(folder), "--json"]
    for setting in settings:
        command += ["--set", setting]
    env = {**os.environ, "FEDPRIVSEG_CACHE": str(cache)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_result(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory, phantom, quickstart):
    """The same scenario on both engines, each with caches of its own."""
    runs = {}
    for engine in ("inline", "ray"):
        folder = tmp_path_factory.mktemp(engine) / "run"
        before = _ray_processes()
        _run(quickstart, folder, tmp_path_factory.mktemp(f"{engine}-cache"), _settings(phantom, engine))
        runs[engine] = folder, _gone(before)
    return runs


def test_results_are_bit_equal(both):
    (inline, _), (ray, _) = both["inline"], both["ray"]
    assert (inline / "metrics.csv").read_bytes() == (ray / "metrics.csv").read_bytes()
    shards = sorted(path.relative_to(inline) for path in inline.glob("server/codes/**/*.safetensors"))
    assert len(shards) > 6
    for shard in shards:
        assert (inline / shard).read_bytes() == (ray / shard).read_bytes(), f"{shard} differs"
    one, other = load_file(inline / "server/mapping.safetensors"), load_file(ray / "server/mapping.safetensors")
    assert set(one) == set(other)
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, other[name])
    for path in inline.glob("server/metrics/*.safetensors"):
        assert Payload.decode(path.read_bytes()).encode() == (ray / path.relative_to(inline)).read_bytes()


def test_rounds_are_bit_equal_on_both_engines(tmp_path, phantom, quickstart):
    """Also when not all sites take part, and when noise is drawn."""
    brief = ["rounds=3", "local_steps=2", "curve_points=1", "test_views=1", "fraction=0.67", "dp.epsilon=8"]
    finals = {}
    for engine in ("inline", "ray"):
        settings = [*_settings(phantom, engine), "method.name=fedavg", "method.variant=default", "method.parameters={}"]
        settings += [f"method.parameters.{setting}" for setting in brief]
        result = _run(quickstart, tmp_path / engine, tmp_path / "cache", settings)
        finals[engine] = load_file(tmp_path / engine / "server/model.safetensors"), result
    (one, first), (other, second) = finals["inline"], finals["ray"]
    assert set(one) == set(other)
    for name, weights in one.items():
        np.testing.assert_array_equal(weights, other[name], err_msg=name)
    assert first.rows() == second.rows()
    assert first.curve == second.curve
    assert first.budgets == second.budgets


def test_nothing_is_left_running(both):
    assert both["ray"][1]


def _start(folder, quickstart, phantom, *more):
    """A run whose training would take hours, unless `more` settings say otherwise, once it has reached a site."""
    command = [sys.executable, "-m", "fedprivseg.cli", "run", str(quickstart), "--out", str(folder)]
    alone = ["resources.cpus=1", "resources.sites_at_once=1", "method.parameters.image_steps=10000000"]
    for setting in _settings(phantom, "ray", *alone, *more):
        command += ["--set", setting]
    # A shell that starts tests in the background has them ignore Ctrl-C, and what they start would inherit that.
    listening = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening)
    end = time.monotonic() + 240
    while not list(folder.glob("sites/*/progress.json")) and time.monotonic() < end:
        time.sleep(0.2)
    (progress,) = folder.glob("sites/*/progress.json")
    return process, progress.parent.name


def _gone(before):
    """Whether what began since `before` has ended; Ray's workers see some time after their master that it is gone."""
    end = time.monotonic() + 30
    while (left := _ray_processes() - before) and time.monotonic() < end:
        time.sleep(0.2)
    return not left


def _workers(before):
    """The workers of sites that began since `before`."""
    found = set()
    for pid in _ray_processes() - before:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(b"ray::SiteWorker"):
            found.add(pid)
    return found


def test_a_worker_that_is_killed_does_not_end_the_run(tmp_path, phantom, quickstart):
    """Another takes its place; nothing of it is told to whoever reads what the command answers, and nothing is left running."""
    before = _ray_processes()
    process, _ = _start(tmp_path / "run", quickstart, phantom)
    killed = _workers(before)
    for pid in killed:
        os.kill(int(pid), signal.SIGKILL)
    end = time.monotonic() + 120
    while not _workers(before) - killed and process.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    assert killed
    assert _workers(before) - killed
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "SIGKILL" not in told + errors
    assert _gone(before)


@pytest.mark.parametrize(
    ("number", "status", "says"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_signal_ends_in_one_sentence_and_nothing_left(tmp_path, phantom, quickstart, number, status, says):
    before = _ray_processes()
    process, _ = _start(tmp_path / "run", quickstart, phantom)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert errors == f"fedprivseg: {says}; the same command goes on where it stopped\n"
    assert _gone(before)


def _failing(monkeypatch, *sites):
    """From now on the training slices of these sites cannot be read."""
    from fedprivseg.runtime.site.site_runtime import SiteRuntime

    training = SiteRuntime.training

    def fail(self):
        if self.name in sites:
            raise OSError("/data/hospital/A1B2C3 is gone")
        return training(self)

    monkeypatch.setattr(SiteRuntime, "training", fail)


def test_an_error_at_every_site_ends_the_run_without_its_text(tmp_path, phantom, quickstart, monkeypatch):
    from fedprivseg.core.errors import SiteError

    _failing(monkeypatch, "centre1", "centre2", "centre3")
    with pytest.raises(SiteError) as caught:
        simulate(load_scenario(quickstart, _settings(phantom, "inline")), tmp_path / "run")
    for site in ("centre1", "centre2", "centre3"):
        assert f"'{site}' failed in 'describe': OSError" in str(caught.value)
    assert "A1B2C3" not in str(caught.value)
    assert caught.value.status == 1


def test_an_error_at_one_site_excludes_it_loudly_and_the_others_go_on(
    tmp_path, phantom, quickstart, monkeypatch, capsys
):
    from rich.console import Console

    from fedprivseg.cli.terminal import print_result
    from fedprivseg.core.errors import RequestError
    from fedprivseg.study import pipeline
    from fedprivseg.study.predict import predict_image

    _failing(monkeypatch, "centre2")
    result = simulate(load_scenario(quickstart, _settings(phantom, "inline")), tmp_path / "run")
    why = result.sites["centre2"].status
    assert why.startswith("failed in 'describe': OSError. The details stay at the site, in its errors.log under id ")
    assert {name for name, site in result.sites.items() if site.status == "ok"} == {"centre1", "centre3"}
    log_id = why.rstrip(".").split()[-1]
    assert log_id in (tmp_path / "run/sites/centre2/errors.log").read_text()
    print_result(result, Console(soft_wrap=True))
    shown = capsys.readouterr().out
    assert f"MISSING: site centre2 {why}" in shown
    assert "over 2 of 3 sites" in shown
    with pytest.raises(RequestError, match="'centre2' left the run.*that finished are: centre1, centre3"):
        predict_image(tmp_path / "run", tmp_path / "x.nii.gz", "centre2", tmp_path / "mask.nii.gz")
    page = pipeline.report(tmp_path / "run").read_text()
    assert "did not take part to the end" in page
    assert log_id in page
