"""The commands about archives: what is archived comes back, for whom it may, and the ledger says who had it."""

from __future__ import annotations

import json
import shutil
import stat

import pytest
from commands import SITE, call, last, refused, tree
from safetensors.numpy import load_file
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.governance.compliance import judge
from fedprivseg.governance.lifecycle.withdrawal import withdraw
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import open_vault
from fedprivseg.imaging.splits import COHORT

STAFF = """
[[staff]]
id = "ada"
title = "researcher"
department = "cardiology"

[[staff]]
id = "max"
title = "data-manager"
department = "archive"
"""


@pytest.fixture
def run(strict_run, tmp_path):
    """A copy of a finished run of sealed sites, of which one says nothing of its staff."""
    shutil.copytree(strict_run, tmp_path / "run")
    (tmp_path / "run/sites" / SITE / "staff.toml").unlink()
    return tmp_path / "run"


@pytest.fixture
def home(run):
    return run / "sites" / SITE


def states(run):
    return {each.clause: each.state for each in judge(run) if each.clause.startswith("5.7")}


def test_an_archive_is_compressed_sealed_and_comes_back_opened(run, home, tmp_path):
    assert "kept until 2027-03-01" in call("archive", "create", run, SITE, "study-7")  # 2026-03-01 and 365 days
    path = home / "archives/study-7.archive"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    event, facts = last(home)
    assert (event, facts["what"], facts["level"], facts["class"]) == (
        "archive",
        "made and verified",
        3,
        "clinical image, structural",
    )
    assert facts["bytes"] == path.stat().st_size < facts["content"]
    assert "restored" not in str(facts)
    (row,) = json.loads(call("archive", "list", run, SITE, "--json"))
    assert (row["archive"], row["until"], row["state"]) == ("study-7", "2027-03-01", "kept")
    assert "readable" in call("archive", "restore", run, SITE, "study-7", "-o", tmp_path / "out")
    vault, notes = open_vault(home), Notes(home)
    held = sorted(each.stem for each in (home / "vault").glob("*.sealed"))
    assert sorted(tree(tmp_path / "out")) == sorted([*(f"{name}.safetensors" for name in held), INTAKE, PARTICIPANTS])
    assert (tmp_path / "out" / INTAKE).read_bytes() == notes.read(INTAKE)
    for name in held:
        back, kept = load_file(tmp_path / "out" / f"{name}.safetensors"), vault.load(name)
        assert {key: value.tobytes() for key, value in back.items()} == {
            key: value.tobytes() for key, value in kept.items()
        }
    event, facts = last(home)
    assert (event, facts["what"], facts["clause"]) == ("archive", "restored", "5.7-c")
    codes = [one.code.encode() for one in COHORT.validate_json(notes.read(PARTICIPANTS)).train]
    assert codes
    assert not any(code in path.read_bytes() for code in codes)


def test_a_damaged_archive_is_told_and_restores_nothing(run, home, tmp_path):
    call("archive", "create", run, SITE, "study-7")
    path = home / "archives/study-7.archive"
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    refused("archive", "restore", run, SITE, "study-7", "-o", tmp_path / "out", status=1)
    path.write_bytes(body[:50])
    done = CliRunner().invoke(app, ["archive", "list", str(run), SITE])
    assert done.exit_code == 1
    assert "does not open" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert list(tree(home / "archives")) == ["study-7.archive"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["../x"], "is no name for an archive"),
        (["study-7", "--keep-until", "2026-03-01"], "ends after 2026-03-01 and by 2027-03-01 at the latest"),
        (["study-7", "--keep-until", "2027-03-02"], "ends after 2026-03-01 and by 2027-03-01 at the latest"),
        (["study-7", "--as", "max"], "has no staff.toml"),
    ],
)
def test_a_wrong_request_makes_no_archive(run, home, words, said):
    before = tree(home)
    assert said in refused("archive", "create", run, SITE, *words)
    assert tree(home) == before


def test_an_archive_is_never_written_over_and_an_unknown_one_is_named(run, home, tmp_path):
    call("archive", "create", run, SITE, "study-7", "--keep-until", "2026-06-01")
    body = (home / "archives/study-7.archive").read_bytes()
    assert "already" in refused("archive", "create", run, SITE, "study-7")
    assert (home / "archives/study-7.archive").read_bytes() == body
    said = refused("archive", "restore", run, SITE, "study-8", "-o", tmp_path / "out")
    assert "it has: study-7" in said
    (tmp_path / "out").mkdir()
    assert "exists already" in refused("archive", "restore", run, SITE, "study-7", "-o", tmp_path / "out")


def test_where_there_is_a_staff_only_its_data_managers_open_archives(run, home, tmp_path):
    (home / "staff.toml").write_text(STAFF)
    out = ("-o", tmp_path / "out")
    for words in (("create", run, SITE, "study-7"), ("list", run, SITE), ("restore", run, SITE, "study-7", *out)):
        for who in ((), ("--as", "ada"), ("--as", "eve")):
            assert "allowed: max" in refused("archive", *words, *who)
    call("archive", "create", run, SITE, "study-7", "--as", "max")
    call("archive", "restore", run, SITE, "study-7", *out, "--as", "max")
    assert last(home)[1]["by"] == "max"


def test_withdrawal_takes_the_archives_with_it(run, home):
    """An archive holds the subject's slices as the vault did."""
    call("archive", "create", run, SITE, "study-7")
    done = withdraw(run, SITE, COHORT.validate_json(Notes(home).read(PARTICIPANTS)).train[0].code)
    assert f"sites/{SITE}/archives/study-7.archive" in {each.path for each in done.at_sites}
    assert tree(home / "archives") == {}
    assert states(run)["5.7-d"] == "kept"


def test_the_clauses_about_archives_are_judged_on_lines_and_files(run, home, tmp_path):
    assert set(states(run).values()) == {"not applicable"}
    call("archive", "create", run, SITE, "study-7", "--keep-until", "2026-06-01")
    assert states(run) == dict.fromkeys(("5.7-a", "5.7-b", "5.7-c", "5.7-d"), "kept")
    path, station = home / "archives/study-7.archive", home / "station.json"
    body, text = path.read_bytes(), station.read_text()
    path.chmod(0o644)
    assert states(run)["5.7-c"] == "broken"
    path.chmod(0o600)
    station.write_text(text.replace("2026-03-01", "2026-06-01"))
    assert states(run)["5.7-b"] == "broken"
    station.write_text(text)
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    assert states(run)["5.7-d"] == "broken"
    path.unlink()
    assert states(run)["5.7-d"] == "broken"
    path.write_bytes(body)
    assert states(run)["5.7-d"] == "kept"
