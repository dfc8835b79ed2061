"""The command line: what it prints, and with which status it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT, tiny_settings

from fedprivseg.documents import read_document

BRIEF = [
    "method.parameters.image_steps=3",
    "method.parameters.mask_steps=3",
    "method.parameters.mapping_steps=3",
    "method.parameters.views=2",
]


def _call(*words, cwd=None):
    command = [sys.executable, "-m", "fedprivseg.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=os.environ)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, phantom, quickstart):
    folder = tmp_path_factory.mktemp("cli") / "run"
    words = [word for setting in [*tiny_settings(phantom), *BRIEF] for word in ("--set", setting)]
    done = _call("run", quickstart, "--out", folder, "--json", *words)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def test_help_says_what_each_argument_is():
    """Typer shows this only with the versions of click that pyproject.toml allows."""
    text = " ".join(_call("withdraw", "--help").stdout.split())
    assert "The subject's site." in text


def test_a_run_without_quorum_still_says_which_rules_were_kept(phantom, tmp_path):
    scenario = ROOT / "simulations/policy-expired-agreement.toml"
    words = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    done = _call("run", scenario, "--out", tmp_path / "run", *words)
    assert done.returncode == 3
    assert f"Which rules were kept until then: {tmp_path / 'run/compliance.json'}" in done.stderr
    states = {each["clause"]: each["state"] for each in json.loads((tmp_path / "run/compliance.json").read_text())}
    assert (states["5.3.2-a"], states["5.3.2-b"]) == ("kept", "not applicable")


def test_help_answers_at_once():
    # The rule is 0.3 s on a quiet machine; the best of five on a busy one may take three times that.
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = _call("--help")
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    for word in ("run", "predict", "report", "methods", "sites", "data", "ledger", "init"):
        assert word in done.stdout
    assert min(times) < 0.9


def test_help_loads_nothing_heavy():
    heavy = ("torch", "numpy", "flwr", "ray", "monai", "pydantic")
    code = f"import sys, fedprivseg.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_run_prints_one_json_document_and_plain_progress(finished):
    folder, content, errors = finished
    assert content["sites"]["centre1"]["status"] == "ok"
    assert (folder / "report.html").exists()
    assert "\x1b[" not in errors, "no colours in a pipe"
    assert "centre1: " in errors


def test_a_second_run_into_the_same_folder_answers_at_once_as_a_table(finished, phantom, quickstart):
    words = [word for setting in [*tiny_settings(phantom), *BRIEF] for word in ("--set", setting)]
    done = _call("run", quickstart, "--out", finished[0], *words)
    assert done.returncode == 0
    assert "centre1" in done.stdout
    assert "mean Dice" in done.stdout


def test_predict_writes_a_mask_on_the_images_grid(finished, phantom, tmp_path):
    image = next(phantom.glob("Testing/*/*_sa.nii.gz"))
    done = _call("predict", finished[0], image, "--site", "centre1", "-o", tmp_path / "mask.nii.gz")
    assert done.returncode == 0, done.stderr
    mask, source = nib.load(tmp_path / "mask.nii.gz"), nib.load(image)
    assert mask.shape == source.shape
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
    assert set(np.unique(mask.dataobj)) <= {0, 1, 2, 3}


def test_predict_answers_as_the_run_did(finished, phantom, tmp_path):
    """At ED and ES of a test subject `predict` must give the masks that the run wrote; other shards, other batches, and so
    bfloat16 may tip a voxel on a border, no more."""
    from fedprivseg.data.mnms import read_release

    by_code = {subject.code: subject for subject in read_release(phantom).subjects}
    ran = sorted((finished[0] / "sites" / "centre2" / "predictions").glob("*.nii.gz"))
    subject = by_code[ran[0].name.split("_")[0]]
    done = _call("predict", finished[0], subject.image, "--site", "centre2", "-o", tmp_path / "mask.nii.gz")
    assert done.returncode == 0, done.stderr
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    for path in ran:
        frame = subject.ed if path.name.endswith("_ED.nii.gz") else subject.es
        assert (mask[..., frame] == np.asarray(nib.load(path).dataobj)).mean() > 0.999


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["run", "absent.toml"], 2, "no such file"),
        (["run", "{quickstart}", "--set", "grid.heigth=1"], 2, "did you mean 'height'"),
        (["run", "{quickstart}", "--data", "absent"], 2, "absent"),
        (["run", "{quickstart}", "--engine", "spark"], 2, "ray"),
        (["predict", "absent", "x.nii", "--site", "centre1", "-o", "m.nii"], 2, "no finished run"),
        (["predict", "{run}", "x.nii", "--site", "centre9", "-o", "m.nii"], 2, "centre1, centre2, centre3"),
        (["predict", "{run}", "x.nii", "--site", "centre1", "-o", "m.nii"], 2, "no such image"),
        (["predict", "{run}", "x.nii", "--site", "centre1", "-o", "m.txt"], 2, ".nii.gz"),
        (["report", "absent"], 2, "no finished run"),
        (["sites", "absent"], 2, "init"),
        (["data", "check", "absent"], 2, "absent"),
        (["ledger", "verify", "absent"], 2, "no ledger"),
    ],
)
def test_wrong_requests_end_with_status_two_and_write_nothing(finished, quickstart, tmp_path, words, status, says):
    words = [word.format(quickstart=quickstart, run=finished[0]) for word in words]
    done = _call(*words, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_lists_and_their_json(tmp_path):
    assert "privacy-sf" in _call("methods").stdout
    assert json.loads(_call("methods", "--json").stdout)[0]["exports"]
    assert "centre5" in _call("sites", ROOT / "sites").stdout
    assert len(json.loads(_call("sites", ROOT / "sites", "--json").stdout)) == 5


def test_ledger_verify_names_the_first_bad_line(finished, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    assert _call("ledger", "verify", copy).returncode == 0
    path = copy / "sites" / "centre2" / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"permit", b"forbid"), *lines[3:]]))
    done = _call("ledger", "verify", copy)
    assert done.returncode == 1
    assert "centre2: BROKEN" in done.stdout
    assert "line 2 of" in done.stdout
    assert "centre1: " in done.stdout


def test_init_copies_the_starter_and_never_overwrites(tmp_path):
    done = _call("init", tmp_path / "mine")
    assert done.returncode == 0
    assert (tmp_path / "mine" / "sites" / "centre1" / "site.toml").exists()
    assert (tmp_path / "mine" / "simulations" / "quickstart.toml").exists()
    again = _call("init", tmp_path / "mine")
    assert again.returncode == 2
    assert "already has" in again.stderr


def test_data_check_and_phantom(phantom, tmp_path):
    done = _call("data", "check", phantom)
    assert done.returncode == 0, done.stderr
    assert "0 faults" in done.stdout
    content = json.loads(_call("data", "check", phantom, "--json").stdout)
    assert {row["centre"] for row in content["splits"]} == {1, 2, 3}
    next(phantom.glob("Testing/*/*_sa.nii.gz"))
    assert _call("data", "phantom", phantom).returncode == 2, "a folder that is not empty is refused"


def test_attack_prints_tables_or_one_document(finished):
    folder = finished[0]
    done = _call("attack", folder, "--attacks", "alignment,linkage")
    assert done.returncode == 0, done.stderr
    assert "Alignment by anchors" in done.stdout
    assert "Linkage of records" in done.stdout
    assert "\x1b[" not in done.stderr, "no colours in a pipe"
    assert "What leaks" in (folder / "report.html").read_text()
    done = _call("attack", folder, "--attacks", "data-free", "--json")
    assert "attacking: data-free" in done.stderr
    assert not list(folder.glob("*.draft"))
    content = json.loads(done.stdout)
    assert {one["attack"] for one in content["redrawn"]} == {"data-free"}
    assert read_document(folder / "attacks.json") == content


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--attacks", "magic"], "the attacks are: foreign-decoder"),
        (["--budget", "huge"], "allowed are small and full"),
        (["--sites", "nowhere"], "the sites of this run are: centre1, centre2, centre3"),
    ],
)
def test_a_wrong_attack_is_refused(finished, words, says):
    done = _call("attack", finished[0], *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
