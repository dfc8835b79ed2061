"""The guide 'From one box to a consortium', word for word: its commands as processes of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.core.results import read_result
from fedprivseg.runtime.deployment.processes import free_ports

pytestmark = [pytest.mark.xdist_group("deployment"), pytest.mark.timeout(1800)]  # also on a busy machine

GUIDE = ROOT / "fedprivseg" / "runtime" / "deployment" / "README.md"
SITES = ("centre1", "centre2", "centre3")

AUDIT = """
import os, sys
_log = os.open(os.environ["FEDPRIVSEG_OPENED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        os.write(_log, os.fsencode(os.path.abspath(args[0])) + b"\\n")
sys.addaudithook(_hook)
"""
"""A ``sitecustomize`` that writes down every file that a process opens."""


def _commands():
    """The commands of the second part of the guide, in its order."""
    text = GUIDE.read_text(encoding="utf-8").split("## Between hospitals")[1]
    return [
        line for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]


class Reader:
    """Somebody who follows the guide in the folder `place`."""

    def __init__(self, stack, place, release):
        self.stack, self.place, self.release = stack, place, release
        self.ports = free_ports(2)
        (place / "bin").mkdir()
        script = place / "bin" / "fedprivseg"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fedprivseg.cli "$@"\n')
        script.chmod(0o755)
        (place / "audit").mkdir()
        (place / "audit" / "sitecustomize.py").write_text(AUDIT)
        self.environ = {**os.environ, "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        self.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])

    def follow(self, line):
        """Run a command of the guide, where it is about one site at every one of them."""
        for site in SITES if "centre1" in line else ("",):
            mine = line.replace("centre1", site) if site else line
            if "HASH" in mine:
                mine = mine.replace("HASH", self.hash)
            if " deploy init " in mine:
                port, link_port = self.ports
                settings = [*tiny_settings(self.release), *BRIEF]
                mine += f" --port {port} --link-port {link_port} " + " ".join(
                    f"--set {shlex.quote(s)}" for s in settings
                )
                mine = mine.replace("simulations/", f"{ROOT}/simulations/")
            mine = mine.replace("DATA", str(self.release))
            if " deploy server " in mine or " deploy site " in mine:
                self._begin(mine)
            else:
                self._run(mine)

    def _begin(self, line):
        words = shlex.split(line)
        with (self.place / f"{words[2]}-{len(list(self.place.glob('*.log')))}.log").open("w") as log:
            process = subprocess.Popen(words, cwd=self.place, env=self.environ, stdout=log, stderr=log)
        self.stack.callback(process.wait)
        self.stack.callback(process.send_signal, signal.SIGTERM)

    def _run(self, line):
        environ = dict(self.environ)
        if " deploy submit " in line:
            environ["FEDPRIVSEG_OPENED"] = str(self.place / "opened.txt")
            environ["PYTHONPATH"] = os.pathsep.join([str(self.place / "audit"), environ["PYTHONPATH"]])
        end = time.monotonic() + 500
        while True:
            done = subprocess.run(
                line, shell=True, cwd=self.place, env=environ, capture_output=True, text=True, check=False
            )
            waits = " deploy status " in line and done.returncode == 1 and time.monotonic() < end
            if not waits:  # the guide says: when all are there
                break
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        if found := re.search(r"^hash: ([0-9a-f]{64})$", done.stdout, re.MULTILINE):
            self.hash = found[1]

    def logs(self):
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.place.glob("*.log")))


@pytest.fixture(scope="module")
def followed(nginx, tmp_path_factory, phantom):
    """The folder of somebody who followed it to the end; everything has ended."""
    place = tmp_path_factory.mktemp("guide")
    with ExitStack() as stack:
        reader = Reader(stack, place, phantom)
        for line in _commands():
            reader.follow(line)
    return place


def test_the_guide_leads_to_a_result(followed):
    result = read_result(followed / "study/server/run")
    assert result.engine == "deployment"
    assert {site: told.status for site, told in result.sites.items()} == dict.fromkeys(SITES, "ok")


def test_the_servers_process_opens_no_image_and_nothing_of_a_hospital(followed, phantom):
    opened = set((followed / "opened.txt").read_text().splitlines())
    assert any(path.endswith("result.json.draft") or "/run/" in path for path in opened), (
        "it was looked at the right one"
    )
    for path in opened:
        assert not path.endswith((".nii", ".nii.gz", ".dcm")), path
        assert not path.startswith((str(phantom), str(followed / "study/sites"))), path


def test_no_image_is_in_the_servers_report_and_no_key_of_a_hospital_in_its_folder(followed):
    page = (followed / "study/server/run/report.html").read_text()
    assert "data:image" not in page
    assert not (followed / "study/server/run/sites").exists()
    keys = {path.read_bytes() for path in (followed / "study/sites").rglob("*.key")}
    keys |= {path.read_bytes() for path in (followed / "study/sites").rglob("key.pem")}
    assert len(keys) == 2 * len(SITES)
    assert not any(path.read_bytes() in keys for path in (followed / "study/server").rglob("*") if path.is_file())


def test_every_party_draws_from_a_secret_seed_of_its_own(followed):
    study = followed / "study"
    seeds = {json.loads((study / f"sites/{site}/site/{site}/station.json").read_text())["seed"] for site in SITES}
    seeds.add(int((study / "server/run/server/seed").read_text()))
    assert len(seeds) == len(SITES) + 1
    assert min(seed.bit_length() for seed in seeds) > 200
    for path in [study / "server/run/server/seed", *study.glob("sites/*/site/*/station.json")]:
        assert not path.stat().st_mode & 0o077, path


def test_everything_has_ended(followed):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        assert str(followed) not in words, words
