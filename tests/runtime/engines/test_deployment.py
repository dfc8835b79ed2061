"""The engine that is a consortium on this machine: the same bits as inline, and nothing left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BRIEF, tiny_settings

from fedprivseg.core.errors import RequestError
from fedprivseg.core.results import read_result
from fedprivseg.runtime.deployment import terminator
from fedprivseg.study.run import load_scenario, simulate

pytestmark = [pytest.mark.xdist_group("deployment"), pytest.mark.timeout(1800)]  # also on a busy machine

_OWN = {"key.pem", "encryption.pem", "identities.json", "station.json", "ledger.jsonl", "ledger.jsonl.head", "run-id"}
"""Files with keys, or signed with them; and the run's own id."""

_CLOCK = {"result.json", "accounts.json", "scenario.json", "compliance.json", "report.html"}
"""Files that tell how long it took, or on which engine."""


@pytest.fixture(scope="module")
def both(nginx, tmp_path_factory, phantom, quickstart):
    folder = tmp_path_factory.mktemp("both")
    (folder / "tmp").mkdir()
    settings = [*tiny_settings(phantom), *BRIEF]
    simulate(load_scenario(quickstart, settings), folder / "inline")
    command = [
        sys.executable,
        "-m",
        "fedprivseg.cli",
        "run",
        str(quickstart),
        "--out",
        str(folder / "deployment"),
        "--json",
    ]
    for setting in [*settings, "engine=deployment"]:
        command += ["--set", setting]
    environ = {**os.environ, "TMPDIR": str(folder / "tmp")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def _files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_it_is_bit_equal_to_inline(both):
    """Every file but those with keys and times: codes, models, vaults, predictions, measures."""
    inline, deployed = _files(both / "inline"), _files(both / "deployment")
    lacking = {name for name in inline if name not in deployed}
    assert all(name.endswith("pictures.safetensors") for name in lacking), lacking
    compared = [name for name in inline if name in deployed and Path(name).name not in _OWN | _CLOCK]
    assert len(compared) > 60
    assert [name for name in compared if inline[name] != deployed[name]] == []
    one, other = read_result(both / "inline"), read_result(both / "deployment")
    assert one.rows() == other.rows()
    assert one.scenario_sha256 == other.scenario_sha256
    for site, told in one.sites.items():
        assert (told.bytes_up, told.bytes_down) == (other.sites[site].bytes_up, other.sites[site].bytes_down)


def test_nothing_is_left(both):
    """No process, no socket, no file: the kit with its keys is gone."""
    assert [*(both / "tmp").glob("fedprivseg-*")] == []
    left = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(both) in words and "pytest" not in words:
            left.append(words)
    assert left == []


def test_no_image_is_in_its_report(both):
    page = (both / "deployment" / "report.html").read_text()
    assert "<image" not in page
    assert "data:image" not in page
    assert json.loads((both / "deployment" / "result.json").read_text())["engine"] == "deployment"


def test_without_nginx_it_says_so_before_anything_begins(tmp_path, monkeypatch, tiny_scenario):
    from fedprivseg.runtime.engines import begun

    monkeypatch.setattr(terminator.shutil, "which", lambda *_, **__: None)
    asked = tiny_scenario.model_copy(update={"engine": "deployment"})
    with pytest.raises(RequestError, match="apt-get install nginx"), begun(asked, tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
