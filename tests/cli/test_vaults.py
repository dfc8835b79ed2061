"""The commands about a vault: what was lost comes back byte for byte, what is damaged is refused, and the ledger tells."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from commands import SITE, call, last, refused, tree
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.errors import FedprivsegError
from fedprivseg.core.results import read_scenario
from fedprivseg.crypto import sealed_files as sealing_module
from fedprivseg.crypto.passphrase import Cost
from fedprivseg.crypto.sealed_files import SealingKey, wants_passphrase
from fedprivseg.governance.compliance import judge
from fedprivseg.governance.lifecycle.withdrawal import withdraw
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.governance.sitefolder.notes import NOTES, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import PASSPHRASE, open_vault
from fedprivseg.imaging.mnms.release import SHORT_AXIS_CINE
from fedprivseg.imaging.nifti import read_geometry
from fedprivseg.imaging.splits import COHORT
from fedprivseg.runtime.site.site_context import SiteContext
from fedprivseg.runtime.site.site_runtime import SiteRuntime
from fedprivseg.study.ground_truth import ground_truth
from fedprivseg.study.run import simulate

HOSPITALS_OWN = ("consent.csv", "records.jsonl", "accounts.jsonl")
"""Registers of the hospital, which name patients; the program reads them and seals nothing of them."""
WORDS = "correct horse battery"
MANAGER = ("--as", "data-manager-1")


@pytest.fixture
def run(strict_run, tmp_path):
    """A copy of a finished run of sealed sites."""
    shutil.copytree(strict_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def home(run):
    return run / "sites" / SITE


# ---------------------------------------------------------------------------------------------- sealed


def _truth(home, scenario):
    site = SiteContext(SiteConfiguration.read(home / "station.json"), scenario)
    return ground_truth(SiteRuntime(site), "test")


def test_no_code_of_a_patient_stands_in_any_file_of_a_sealed_site_but_the_register(strict_run):
    for site in ("centre1", "centre2", "centre3"):
        home = strict_run / "sites" / site
        people = COHORT.validate_json(Notes(home).read(PARTICIPANTS))
        codes = [one.code.encode() for one in (*people.train, *people.test)]
        assert len(codes) == 3
        files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
        assert len(files) > 10
        for path, body in files.items():
            found = [code for code in codes if code in body or code in path.name.encode()]
            assert sorted(found) == (sorted(codes) if path.name in HOSPITALS_OWN else []), path.name
        assert not [name for name in NOTES if (home / name).exists()]


# ---------------------------------------------------------------------------------------------- backup, restore


def test_a_lost_site_comes_back_byte_for_byte_and_the_run_goes_on_as_before(run, home, tmp_path):
    scenario = read_scenario(run)
    key, before = tmp_path / "kept.key", tree(home)
    shutil.copy(home / "sealing.key", key)
    known = _truth(home, scenario)
    score = json.loads((run / "result.json").read_text())["mean_dice"]
    assert "verified; sealing.key is not in it" in call("vault", "backup", run, SITE, "-o", tmp_path / "b")
    assert last(home)[1]["what"] == "made and verified"
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    body = (tmp_path / "b").read_bytes()
    assert key.read_bytes() not in body
    shutil.rmtree(home)
    assert "files restored as they were on" in call("vault", "restore", tmp_path / "b", run, SITE, "--key", key)
    after = tree(home)
    told = ("ledger.jsonl", "ledger.jsonl.head")
    assert {name: body for name, body in after.items() if name not in told} == {
        name: body for name, body in before.items() if name not in told
    }
    assert after["ledger.jsonl"].startswith(before["ledger.jsonl"])
    event, facts = last(home)
    assert (event, facts["what"], facts["clause"]) == ("backup", "restored", "5.4.2-c")
    kept = [path for path in home.rglob("*") if path.name not in told]
    assert not [path.name for path in kept if stat.S_IMODE(path.stat().st_mode) & 0o077]
    again = _truth(home, scenario)
    assert again.people == known.people
    np.testing.assert_array_equal(again.images, known.images)
    shutil.rmtree(run / "server/codes" / SITE)  # so that the site has to encode anew with its restored encoders
    (run / "result.json").unlink()
    assert simulate(scenario, run).mean_dice == score


def test_a_damaged_backup_is_refused_and_nothing_is_written(run, home, tmp_path):
    call("vault", "backup", run, SITE, "-o", tmp_path / "b")
    shutil.move(home, tmp_path / "aside")
    key, whole = tmp_path / "aside/sealing.key", (tmp_path / "b").read_bytes()
    before = sorted(path.name for path in home.parent.iterdir())
    for place in (0, 60, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "b").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused("vault", "restore", tmp_path / "b", run, SITE, "--key", key, status=1)
    for cut in (whole[:100], whole[:-1], whole + b"x"):
        (tmp_path / "b").write_bytes(cut)
        refused("vault", "restore", tmp_path / "b", run, SITE, "--key", key, status=1)
    assert sorted(path.name for path in home.parent.iterdir()) == before
    (tmp_path / "b").write_bytes(whole)
    SealingKey.create(tmp_path / "other.key")
    assert "another key" in refused(
        "vault", "restore", tmp_path / "b", run, SITE, "--key", tmp_path / "other.key", status=1
    )
    assert "could not be read" in refused("vault", "restore", tmp_path / "absent", run, SITE, "--key", key)
    assert "could not be read" in refused("vault", "restore", tmp_path / "b", run, SITE, "--key", tmp_path / "absent")
    assert sorted(path.name for path in home.parent.iterdir()) == before


def test_nothing_is_restored_over_and_no_backup_of_another_site(run, home, tmp_path):
    call("vault", "backup", run, SITE, "-o", tmp_path / "b")
    before = tree(home)
    words = ("vault", "restore", tmp_path / "b", run)
    assert "restored over" in refused(*words, SITE, "--key", home / "sealing.key")
    shutil.rmtree(run / "sites/centre1")
    assert "of 'centre2', not of 'centre1'" in refused(*words, "centre1", "--key", home / "sealing.key")
    assert not (run / "sites/centre1").exists()
    assert "exists already" in refused("vault", "backup", run, SITE, "-o", tmp_path / "b")
    assert "in the folder" in refused("vault", "backup", run, SITE, "-o", home / "vault/b")
    assert tree(home) == before


def test_a_backup_from_before_a_withdrawal_is_not_restored(run, home, tmp_path):
    """It holds slices of the subject, whose consent says no more that anybody may."""
    shutil.copy(home / "sealing.key", tmp_path / "kept.key")
    call("vault", "backup", run, SITE, "-o", tmp_path / "old")
    subject = COHORT.validate_json(Notes(home).read(PARTICIPANTS)).train[0].code
    withdraw(run, SITE, subject)
    call("vault", "backup", run, SITE, "-o", tmp_path / "new")
    shutil.rmtree(home)
    old = ("vault", "restore", tmp_path / "old", run, SITE, "--key", tmp_path / "kept.key")
    assert "before consent was withdrawn at the site" in refused(*old)
    (run / "withdrawals.json").rename(tmp_path / "withdrawals.json")
    assert "before consent was withdrawn at the site" in refused(*old), "the server's ledger tells of it too"
    (tmp_path / "withdrawals.json").rename(run / "withdrawals.json")
    assert not home.exists()
    call("vault", "restore", tmp_path / "new", run, SITE, "--key", tmp_path / "kept.key")
    assert home.exists()


# ---------------------------------------------------------------------------------------------- check, export, show


def test_check_names_what_does_not_open_and_what_lies_open(run, home):
    clean = json.loads(call("vault", "check", run, SITE, "--json"))
    assert clean["faults"] == []
    assert clean["files"] > 5
    assert last(home)[1] | {"files": 0} == {"clause": "5.4.2-b", "faults": 0, "files": 0, "what": "checked"}
    path = home / "vault/training-slices.sealed"
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    (home / "vault/image-codec.sealed").write_bytes(b"")
    (home / "vault/codes.safetensors").write_bytes(b"open")
    (home / "errors.log").write_text("open")
    done = CliRunner().invoke(app, ["vault", "check", str(run), SITE, "--json"])
    assert done.exit_code == 1
    assert {each["name"] for each in json.loads(done.stdout)["faults"]} == {
        "vault/training-slices.sealed",
        "vault/image-codec.sealed",
        "vault/codes.safetensors",
        "errors.log",
    }
    assert last(home)[1]["faults"] == 4


def test_predictions_are_opened_for_the_hospital_as_a_plain_site_writes_them(run, home, tmp_path):
    assert "for the hospital alone" in call("vault", "export", run, SITE, "-o", tmp_path / "out", *MANAGER)
    (one,) = COHORT.validate_json(Notes(home).read(PARTICIPANTS)).test
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{one.code}_ED.nii.gz",
        f"{one.code}_ES.nii.gz",
    ]
    kept = open_vault(home).load("prediction-00000-es")
    image = nib.load(tmp_path / "out" / f"{one.code}_ES.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), kept["mask"])
    place = read_geometry(one.image, SHORT_AXIS_CINE)
    assert kept["header"].tobytes() == place.header
    assert read_geometry(tmp_path / "out" / f"{one.code}_ES.nii.gz", SHORT_AXIS_CINE).header == place.header
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (tmp_path / "out").iterdir())
    opened = {"by": "data-manager-1", "clause": "5.4.2-d", "files": 2, "role": "data-manager", "what": "opened"}
    assert last(home) == ("access", {**opened, "object": "predictions"})
    assert "exists already" in refused("vault", "export", run, SITE, "-o", tmp_path / "out", *MANAGER)


@pytest.mark.parametrize("words", [("export",), ("show", "intake.json")])
def test_only_a_data_manager_opens_what_a_sealed_site_holds(words, run, home, tmp_path):
    name, *rest = words
    out = ("-o", tmp_path / "out") if name == "export" else ()
    for who in ((), ("--as", "chief"), ("--as", "nobody")):
        said = refused("vault", name, run, SITE, *rest, *out, *who)
        assert "allowed: data-manager-1, data-manager-2" in said
    assert not (tmp_path / "out").exists()
    call("vault", name, run, SITE, *rest, *out, *MANAGER)
    found = {each.clause: each.state for each in judge(run)}
    assert found["5.4.2-d"] == "not applicable", "nobody asked the policies"
    (home / "staff.toml").unlink()
    call("vault", name, run, SITE, *rest, *(("-o", tmp_path / "again") if out else ()))
    broken = {each.clause: each for each in judge(run)}["5.4.2-d"]
    assert (broken.state, broken.fix != "") == ("broken", True)
    assert f"{SITE} has no decision" in broken.why


def test_a_changed_prediction_exports_nothing(run, home, tmp_path):
    path = home / "vault/prediction-00000-es.sealed"
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    refused("vault", "export", run, SITE, "-o", tmp_path / "out", *MANAGER, status=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    for left in home.glob("vault/prediction-*"):
        left.unlink()
    assert "holds no predictions" in refused("vault", "export", run, SITE, "-o", tmp_path / "out", *MANAGER)


def test_a_note_is_shown_opened_and_the_ledger_says_so(run, home):
    assert json.loads(call("vault", "show", run, SITE, "intake.json", *MANAGER))["recorded"] is True
    assert (last(home)[1]["object"], last(home)[1]["by"]) == ("intake.json", "data-manager-1")
    assert "may have: intake.json, cohort.json, errors.log" in refused("vault", "show", run, SITE, "../policy.toml")
    assert "nothing of the kind" in refused("vault", "show", run, SITE, "errors.log", *MANAGER)


# ---------------------------------------------------------------------------------------------- the key


def test_a_key_is_made_where_there_is_none_and_never_where_a_lost_one_is_needed(run, home):
    assert "exists already" in refused("vault", "key", run, SITE)
    kept = (home / "sealing.key").read_bytes()
    (home / "sealing.key").unlink()
    assert "only the key that was lost opens them" in refused("vault", "key", run, SITE)
    for path in [*home.rglob("*.sealed")]:
        path.unlink()
    assert "keep a copy" in call("vault", "key", run, SITE)
    assert (home / "sealing.key").read_bytes() != kept
    assert stat.S_IMODE((home / "sealing.key").stat().st_mode) == 0o600
    event, facts = last(home)
    assert (event, facts["what"], facts["clause"]) == ("storage", "sealing key made", "5.4.2-a")
    assert facts["key"] == SealingKey.load(home / "sealing.key").id
    shutil.rmtree(home)
    assert "Restore it from a backup" in refused("vault", "key", run, SITE)
    assert not home.exists()


def test_a_key_under_a_passphrase_opens_with_that_alone_and_is_never_shown(run, home, monkeypatch):
    monkeypatch.setattr(sealing_module, "Cost", lambda *cost: Cost(*(cost or (4, 2, 1))))
    for path in [home / "sealing.key", *home.rglob("*.sealed")]:
        path.unlink()
    assert "FEDPRIVSEG_PASSPHRASE" in refused("vault", "key", run, SITE, "--passphrase")
    monkeypatch.setenv(PASSPHRASE, "short")
    assert "too short" in refused("vault", "key", run, SITE, "--passphrase")
    assert not (home / "sealing.key").exists()
    monkeypatch.setenv(PASSPHRASE, WORDS)
    assert WORDS not in call("vault", "key", run, SITE, "--passphrase")
    assert wants_passphrase(home / "sealing.key")
    assert WORDS not in (home / "ledger.jsonl").read_text()
    open_vault(home).save("codec", {"w": np.ones(3)})
    assert json.loads(call("vault", "check", run, SITE, "--json"))["faults"] == []
    monkeypatch.delenv(PASSPHRASE)
    assert "FEDPRIVSEG_PASSPHRASE" in refused("vault", "check", run, SITE)
    monkeypatch.setenv(PASSPHRASE, "another battery horse")
    assert "another key" in refused("vault", "check", run, SITE, status=1)


def test_a_run_whose_keys_stand_under_a_passphrase_ends_with_the_same_numbers(run, monkeypatch, tmp_path):
    """The environment variable is all that a simulation needs, and without it nothing is opened."""
    monkeypatch.setattr(sealing_module, "Cost", lambda *cost: Cost(*(cost or (4, 2, 1))))
    monkeypatch.setenv(PASSPHRASE, WORDS)
    scenario = read_scenario(run)
    score = json.loads((run / "result.json").read_text())["mean_dice"]
    assert simulate(scenario, tmp_path / "locked").mean_dice == score
    home = tmp_path / "locked/sites" / SITE
    assert wants_passphrase(home / "sealing.key")
    monkeypatch.delenv(PASSPHRASE)
    with pytest.raises(FedprivsegError, match="FEDPRIVSEG_PASSPHRASE"):
        open_vault(home)


# ---------------------------------------------------------------------------------------------- the wrong place


def test_every_command_refuses_what_is_no_run_or_no_site(run, home, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    before = tree(run)
    key = ("--key", home / "sealing.key")
    for first, then in (
        (("vault", "key"), ()),
        (("vault", "backup"), ("-o", tmp_path / "out")),
        (("vault", "restore", tmp_path / "x"), key),
        (("vault", "check"), ()),
        (("vault", "export"), ("-o", tmp_path / "out")),
        (("vault", "show"), ("intake.json",)),
        (("archive", "create"), ("study",)),
        (("archive", "list"), ()),
        (("archive", "restore"), ("study", "-o", tmp_path / "out")),
    ):
        assert "holds no run" in refused(*first, tmp_path / "empty", SITE, *then)
        said = refused(*first, run, "centre9", *then)
        assert "the sites of this run are: centre1, centre2, centre3" in said
    assert tree(run) == before
    assert not (tmp_path / "out").exists()
    words = [sys.executable, "-m", "fedprivseg.cli", "vault", "check", str(run), "centre9"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fedprivseg: unknown site 'centre9'")


def test_a_site_whose_policy_keeps_it_plain_has_nothing_sealed_to_open(run, home, tmp_path):
    text = (home / "policy.toml").read_text()
    (home / "policy.toml").write_text(text.replace('at_rest = "encrypted"', 'at_rest = "plain"'))
    for words in (("check", run, SITE), ("export", run, SITE, "-o", tmp_path / "out")):
        assert "the vault of centre2 is plain" in refused("vault", *words)
