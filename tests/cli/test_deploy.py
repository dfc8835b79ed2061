"""``fedprivseg deploy``: what a wrong request is told, and that keys stay where they are made."""

from __future__ import annotations

import json
import os
import re

import pytest
from conftest import ROOT, tiny_settings
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import FedprivsegError
from fedprivseg.runtime.deployment.processes import free_ports

SCENARIO = str(ROOT / "simulations" / "quickstart.toml")


@pytest.fixture(autouse=True)
def _own_umask():
    """The commands set that of their process, which here is everybody's."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def _deploy(*words):
    done = CliRunner().invoke(app, ["deploy", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, FedprivsegError), done.exception
        return done.exception.status, str(done.exception)
    return done.exit_code, done.output


@pytest.fixture
def study(tmp_path, phantom):
    port, link_port = free_ports(2)
    words = [part for setting in tiny_settings(phantom) for part in ("--set", setting)]
    ports = ["--port", port, "--link-port", link_port]
    code, said = _deploy("init", tmp_path / "study", "--scenario", SCENARIO, "--host", "localhost", *ports, *words)
    assert code == 0, said
    return tmp_path / "study"


def _hash(hospital):
    code, said = _deploy("approve", hospital)
    assert code == 0
    return re.search(r"^hash: (\w+)$", said, re.MULTILINE)[1]


def test_no_key_of_a_hospital_is_in_the_kit(study):
    for site in (study / "sites").iterdir():
        assert not [path for path in site.rglob("*") if path.suffix == ".key"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (study / "server").rglob("*") if path.suffix == ".key")


def test_a_kit_takes_no_folder_that_is_in_use(study):
    code, said = _deploy("init", study, "--scenario", SCENARIO, "--host", "localhost")
    assert (code, "not empty" in said) == (2, True)


def test_the_pages_and_units_of_a_kit_are_filled_in(study):
    pages = [path for path in study.rglob("*") if path.suffix in (".md", ".service", ".Containerfile")]
    assert len(pages) == 3 * (1 + len(list((study / "sites").iterdir())))
    for page in pages:
        assert "$" not in page.read_text(), page
    assert "centre1" in (study / "sites/centre1/fedprivseg-site.service").read_text()


def test_a_key_is_made_once(study):
    assert _deploy("keygen", study / "sites/centre1")[0] == 0
    code, said = _deploy("keygen", study / "sites/centre1")
    assert (code, "never overwritten" in said) == (2, True)


def test_both_sides_are_shown_the_same_fingerprint(study):
    hospital = study / "sites/centre1"
    shown = _deploy("keygen", hospital)[1], _deploy("certify", study / "server", hospital / "centre1.csr")[1]
    first, second = (re.search(r"fingerprint: ([0-9a-f ]{39})", text)[1] for text in shown)
    assert first == second


def test_who_is_no_site_of_the_study_is_not_certified(study, tmp_path):
    from fedprivseg.runtime.deployment.certificates import create_key, request

    (tmp_path / "stranger.csr").write_bytes(request(create_key(tmp_path / "key"), "centre9"))
    code, said = _deploy("certify", study / "server", tmp_path / "stranger.csr")
    assert (code, "centre1, centre2, centre3" in said) == (2, True)


def test_a_second_key_under_a_name_is_not_certified(study, tmp_path):
    """Somebody who asks for a hospital's name after the hospital."""
    from fedprivseg.runtime.deployment.certificates import create_key, request

    _deploy("keygen", study / "sites/centre1")
    assert _deploy("certify", study / "server", study / "sites/centre1/centre1.csr")[0] == 0
    (tmp_path / "again.csr").write_bytes(request(create_key(tmp_path / "key"), "centre1"))
    code, said = _deploy("certify", study / "server", tmp_path / "again.csr")
    assert (code, "another key" in said) == (2, True)


def test_a_request_that_was_tampered_with_is_none(study, tmp_path):
    _deploy("keygen", study / "sites/centre1")
    (tmp_path / "bad.csr").write_bytes((study / "sites/centre1/centre1.csr").read_bytes()[:-60])
    assert _deploy("certify", study / "server", tmp_path / "bad.csr")[0] == 2


def test_an_app_is_approved_by_its_own_hash(study):
    hospital = study / "sites/centre1"
    sha256 = _hash(hospital)
    assert _deploy("approve", hospital, "0" * 64, "--as", "A")[0] == 2
    assert _deploy("approve", hospital, sha256)[0] == 2, "by nobody"
    assert _deploy("approve", hospital, sha256, "--as", "A")[0] == 0
    assert json.loads((hospital / "approved.json").read_text())[sha256]["by"] == "A"
    (hospital / "app.fab").write_bytes((hospital / "app.fab").read_bytes() + b" ")
    assert _deploy("approve", hospital, sha256, "--as", "A")[0] == 2, "another app"


def test_a_site_begins_with_nothing_missing(study, phantom):
    """App, policy, images, key, certificate: what lacks is named, one after the other."""
    hospital = study / "sites/centre1"
    begin = "site", hospital, "--data", phantom
    code, said = _deploy(*begin)
    assert (code, "not approved" in said) == (2, True)
    _deploy("approve", hospital, _hash(hospital), "--as", "A")
    code, said = _deploy(*begin)
    assert (code, "policy.toml is missing" in said) == (2, True)
    policy = hospital / "site/centre1/policy.toml"
    policy.parent.mkdir(parents=True)
    policy.write_bytes((hospital / "proposed-policy.toml").read_bytes())
    code, said = _deploy("site", hospital)
    assert (code, "--data" in said) == (2, True)
    code, said = _deploy(*begin)
    assert (code, "node.key" in said) == (2, True)
    _deploy("keygen", hospital)
    code, said = _deploy(*begin)
    assert (code, "centre1.pem is missing" in said) == (2, True)


def test_how_it_stands_is_told_to_either_party(study):
    code, said = _deploy("status", study / "sites/centre1", "--json")
    assert code == 1
    states = {each["what"]: each for each in json.loads(said)}
    assert not states["key"]["well"]
    assert "keygen" in states["key"]["state"]
    code, said = _deploy("status", study / "server", "--json")
    states = {each["what"]: each for each in json.loads(said)}
    assert code == 1
    assert states["centre1"]["state"] == "has no certificate yet"
    assert "deploy server" in states["SuperLink"]["state"]
    assert _deploy("status", study)[0] == 2


def test_without_its_server_nothing_is_submitted(study):
    code, said = _deploy("submit", study / "server")
    assert (code, "deploy server" in said) == (1, True)
