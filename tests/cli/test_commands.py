"""The command line: what it prints, and with which status it ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from commands import call, refused, tree
from conftest import ROOT, tiny_settings
from disk import read_only
from typer.testing import CliRunner

from fedprivseg.cli import app
from fedprivseg.core.documents import read_document
from fedprivseg.core.errors import FedprivsegError

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
    assert "A site of the run, such as centre1." in text


def test_a_run_without_quorum_still_says_which_rules_were_kept(phantom, tmp_path):
    scenario = ROOT / "simulations/policy-expired-agreement.toml"
    words = [word for setting in tiny_settings(phantom) for word in ("--set", setting)]
    done = _call("run", scenario, "--out", tmp_path / "run", *words)
    assert done.returncode == 3
    assert f"Which rules were kept until then: {tmp_path / 'run/compliance.json'}" in done.stderr
    states = {each["clause"]: each["state"] for each in json.loads((tmp_path / "run/compliance.json").read_text())}
    assert (states["5.3.2-a"], states["5.3.2-b"]) == ("kept", "not applicable")


def test_help_names_every_command():
    done = _call("--help")
    assert done.returncode == 0
    for word in ("run", "predict", "report", "methods", "sites", "data", "ledger", "agreement", "init"):
        assert word in done.stdout
    assert "--install-completion" in done.stdout


def test_the_shell_completes_commands():
    asked = {"_FEDPRIVSEG_COMPLETE": "complete_bash", "COMP_WORDS": "fedprivseg agreement si", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "fedprivseg.cli"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **asked})
    assert done.stdout.split() == ["sign"]


def test_help_loads_nothing_heavy():
    """What makes help answer at once: nothing but the command line's own libraries is imported."""
    heavy = ("torch", "numpy", "flwr", "ray", "monai", "pydantic", "cryptography", "matplotlib")
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([m for m in {heavy} if m in sys.modules], file=sys.stderr))\n"
        "from fedprivseg.cli import main\n"
        "sys.argv = ['fedprivseg', '--help']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_run_prints_one_json_document_and_plain_progress(finished):
    folder, content, errors = finished
    assert content["sites"]["centre1"]["status"] == "ok"
    assert (folder / "report.html").exists()
    assert "\x1b[" not in errors, "no colours in a pipe"
    assert "centre1: " in errors


def test_a_run_that_segments_nothing_says_so_everywhere(finished, phantom, quickstart):
    """Three steps teach nothing: the status is 0, since that was measured, and nobody can miss it."""
    folder, content, _ = finished
    assert content["overall_dice"] < 0.05
    assert content["notes"][0].startswith("This run segments nothing: mean Dice 0.0")
    assert json.loads((folder / "result.json").read_text())["notes"] == content["notes"]
    assert "This run segments nothing" in (folder / "report.html").read_text()
    words = [word for setting in [*tiny_settings(phantom), *BRIEF] for word in ("--set", setting)]
    assert "WARNING: This run segments nothing" in _call("run", quickstart, "--out", folder, *words).stdout


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


def test_predict_warns_in_words_and_in_json(finished, phantom, tmp_path):
    """A run of three steps finds nothing."""
    image = next(phantom.glob("Testing/*/*_sa.nii.gz"))
    done = _call("predict", finished[0], image, "--site", "centre1", "-o", tmp_path / "mask.nii.gz", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["mask"] == str(tmp_path / "mask.nii.gz")
    assert content["shape"] == list(nib.load(image).shape)
    assert "near-zero-dice" in [warned["code"] for warned in content["warnings"]]
    assert [f"warning: {warned['text']}" for warned in content["warnings"]] == done.stderr.splitlines()


def test_predict_never_replaces_its_image(finished, phantom, tmp_path):
    image = tmp_path / "image.nii.gz"
    image.write_bytes(next(phantom.glob("Testing/*/*_sa.nii.gz")).read_bytes())
    before = image.read_bytes()
    done = _call("predict", finished[0], image, "--site", "centre1", "-o", image)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the image itself" in done.stderr
    assert image.read_bytes() == before


def test_data_check_shows_spacing_as_a_range(phantom):
    from fedprivseg.imaging.cohort import summarise
    from fedprivseg.imaging.mnms.release import MnMs

    done = _call("data", "check", phantom)
    assert done.returncode == 0, done.stderr
    row = summarise(MnMs().read(phantom))[0]
    low, high, apart = row.spacing_min[0], row.spacing_max[0], row.spacing_min[2]
    assert f"{low:.2f}-{high:.2f} x {low:.2f}-{high:.2f} x {apart:.2f}" in done.stdout.splitlines()[1].split("\t")


def test_predict_answers_as_the_run_did(finished, phantom, tmp_path):
    """At ED and ES of a test subject `predict` must give the masks that the run wrote; other shards, other batches, and so
    bfloat16 may tip a voxel on a border, no more."""
    from fedprivseg.imaging.mnms.release import MnMs

    by_code = {subject.code: subject for subject in MnMs().read(phantom).subjects}
    ran = sorted((finished[0] / "sites" / "centre2" / "predictions").glob("*.nii.gz"))
    subject = by_code[ran[0].name.split("_")[0]]
    done = _call("predict", finished[0], subject.image, "--site", "centre2", "-o", tmp_path / "mask.nii.gz")
    assert done.returncode == 0, done.stderr
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    for path in ran:
        frame = subject.frames[path.name.removesuffix(".nii.gz")[-2:]]
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
    quickstart = tmp_path / "mine" / "simulations" / "quickstart.toml"
    assert quickstart.exists()
    assert done.stdout.splitlines()[-1] == f"next: fedprivseg run {quickstart}"
    assert _call("run", quickstart, "--dry-run").returncode == 0, "and that command works"
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


def test_data_check_tells_warnings_by_name_and_ends_well(phantom, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(phantom, release)
    path = next(release.glob("Testing/*/*_sa_gt.nii.gz"))
    image = nib.load(path)
    nib.Nifti1Image(np.array([0, 3, 2, 1], np.uint8)[np.asarray(image.dataobj)], image.affine).to_filename(path)
    done = _call("data", "check", release)
    assert done.returncode == 0, done.stderr
    assert "0 faults, 2 warnings" in done.stdout
    assert "warning: label-order: ED: " in done.stdout
    assert "that of ACDC" in done.stdout
    assert path.name in done.stdout
    content = json.loads(_call("data", "check", release, "--json", "--sites", ROOT / "sites").stdout)
    assert [each["code"] for each in content["warnings"]] == ["label-order"] * 2
    assert content["faults"] == []


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
    assert {one["attack"] for one in content["reconstructions"]} == {"data-free"}
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


class _EnoughError(FedprivsegError):
    """The command came as far as the test looks."""


@pytest.fixture
def data_of(monkeypatch):
    """The data folder with which a command would run."""
    asked = []

    def stop(scenario, *_, **__):
        asked.append(scenario.data.source)
        raise _EnoughError

    monkeypatch.setattr("fedprivseg.study.run.simulate", stop)
    # The folder need hold no release.
    monkeypatch.setattr("fedprivseg.cli.studies._look_ahead", lambda *_, **__: None)
    monkeypatch.setattr("fedprivseg.study.benchmark._costs", lambda scenarios, *_: [1.0] * len(scenarios))

    def call(*words):
        with pytest.raises(_EnoughError):
            CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
        return asked.pop()

    return call


@pytest.mark.parametrize("name", ["数据𠮷野", 'a"b', "[/red]", "1", "x\ny = 2", "a\\u0041"])
def test_a_data_folder_is_taken_as_it_is_called(data_of, quickstart, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    for command in (["run", quickstart, "--engine", "inline"], ["benchmark", ROOT / "simulations/benchmark-acdc"]):
        assert data_of(*command, "--data", folder, "-o", tmp_path / "out") == str(folder)
        assert data_of(*command, "--set", f"data.source={folder}", "-o", tmp_path / "out") == str(folder)


def test_a_folder_that_is_not_utf8_is_refused(quickstart, tmp_path):
    done = _call("run", quickstart, "--data", os.fsencode(tmp_path).decode() + "/\udcff", cwd=tmp_path)
    assert done.returncode == 2
    assert "no text in UTF-8" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_on_a_read_only_disk_is_read(finished, phantom, quickstart, tmp_path, monkeypatch):
    folder = finished[0]
    words = [word for setting in [*tiny_settings(phantom), *BRIEF] for word in ("--set", setting)]
    image = next(phantom.glob("Testing/*/*_sa.nii.gz"))
    before = tree(folder)
    monkeypatch.setenv("FEDPRIVSEG_CACHE", "/dev/null/cache")  # it is not needed either
    with read_only(folder):
        assert f"report: {folder / 'report.html'}" in call("run", quickstart, "--out", folder, *words)
        assert json.loads(call("run", quickstart, "--out", folder, *words, "--json"))["overall_dice"] is not None
        assert "written: " in call("compare", folder, "-o", tmp_path / "compare.html")
        assert "centre1: " in call("ledger", "verify", folder)
        assert "release" in call("ledger", "query", folder)
        call("predict", folder, image, "--site", "centre1", "-o", tmp_path / "mask.nii.gz")
    assert tree(folder) == before


@pytest.mark.parametrize(
    "words", [["report"], ["attack"], ["compare", "-o", "{run}/c.html"]], ids=lambda words: words[0]
)
def test_what_must_write_says_at_once_that_it_cannot(finished, words):
    folder = finished[0]
    with read_only(folder):
        said = refused(words[0], folder, *(word.format(run=folder) for word in words[1:]))
    assert str(folder) in said
    assert "cannot be written (Read-only file system)" in said
