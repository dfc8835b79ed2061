"""Run folders: resumed, refused, never half-written; results that read back."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import BRIEF, ROOT, STRICT, tiny_settings

from fedprivseg.core.compute import arithmetic_name
from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.errors import DataError, FedprivsegError, FolderError, QuorumError, RunError
from fedprivseg.core.records import Payload, digest
from fedprivseg.core.results import check_files, read_result
from fedprivseg.core.task import default_task
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.crypto.sealed_files import SealingKey
from fedprivseg.governance.lifecycle.withdrawal import withdraw
from fedprivseg.governance.policy.agreement import read_agreement
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.imaging.splits import cohort
from fedprivseg.methods.privacy_sf import PrivacySF
from fedprivseg.runtime.server.store import Arrival, Store
from fedprivseg.study.run import _scores, _warned, _withdrawn, load_scenario, simulate

AT_THE_SITE = "The details stay at the site"
"""With what a site is excluded that cannot read a file of its own."""

ALL_BUT_THE_FIRST = {"centre1": False, "centre2": True, "centre3": True}


@pytest.fixture(scope="module")
def scenario(phantom, quickstart):
    return load_scenario(quickstart, [*tiny_settings(phantom), *BRIEF])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scenario):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, simulate(scenario, folder)


def test_the_result_reads_back_as_it_was(finished):
    folder, result = finished
    assert read_result(folder) == result
    assert result.simulated_time is None, "no site states a profile"
    content = json.loads((folder / "result.json").read_text())
    for key in (
        "schema_version", "scenario", "scenario_sha256", "seed", "method", "variant", "engine", "exports", "sites",
        "mean_dice", "stages", "wall_s", "peak_rss_mb", "environment",
    ):  # fmt: skip
        assert key in content
    site = content["sites"]["centre1"]
    for key in ("status", "subjects_train", "subjects_test", "dice", "hd95_mm", "bytes_up", "bytes_down", "seconds"):
        assert key in site
    assert set(site["dice"]["structures"]) == {"LV", "MYO", "RV"}
    assert content["environment"]["arithmetic"] == arithmetic_name(
        "cpu", content["scenario"]["method"]["parameters"]["half"]
    )


def test_a_finished_run_is_read_not_repeated(finished, scenario):
    folder, result = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert simulate(scenario, folder) == result
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", ["send_image_codes", "send_test_codes", "decode", "measure"])
def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path, scenario, finished, monkeypatch, stage):
    """The run is stopped when a site first reaches `stage`; what was finished by then is not done again."""
    fits = []
    fit = PrivacySF.actions["fit_encoders"]

    def counted(method, site, order):
        fits.append(site.vault.has("mask-codec"))
        return fit(method, site, order)

    def stop(method, site, order):
        raise KeyboardInterrupt

    monkeypatch.setattr(PrivacySF, "actions", {**PrivacySF.actions, stage: stop})
    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(PrivacySF, "actions", {**PrivacySF.actions, "fit_encoders": counted})
    result = simulate(scenario, tmp_path / "run")
    assert result.resumed
    assert fits == [True, True, True], "finished encoders are found again, not fitted again"
    assert result.metrics == finished[1].metrics
    assert traffic(result) == traffic(finished[1])


def traffic(result):
    return {name: (site.bytes_up, site.bytes_down) for name, site in result.sites.items()}


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_while_a_shard_is_stored_loses_no_bytes_and_counts_none_twice(
    tmp_path, scenario, finished, monkeypatch, after
):
    put, calls = Store.put, []

    def killed(store, action, arrival):
        calls.append(action)
        if len(calls) < 8:
            put(store, action, arrival)
            return
        if after:
            put(store, action, arrival)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        simulate(scenario, tmp_path / "run")
    monkeypatch.undo()
    result = simulate(scenario, tmp_path / "run")
    assert traffic(result) == traffic(finished[1])
    assert result.metrics == finished[1].metrics


class _Killed(BaseException):
    """The process is dead: from here on it touches no file."""


class _Kill:
    """Kills at the `number`-th change of a file or folder by set-up, before or after it happens."""

    CHANGES = (
        (os, "replace"),
        (os, "link"),
        (os, "mkdir"),
        (os, "chmod"),
        (os, "unlink"),
        (os, "truncate"),
        (os, "write"),
    )

    def __init__(self, patch, number, *, after):
        self.left, self.after, self.dead = number, after, False
        for module, name in self.CHANGES:
            patch.setattr(module, name, self._wrapped(getattr(module, name)))

    def _wrapped(self, change):
        def counted(*args, **options):
            self.dead = self.dead or (self.left == 1 and not self.after)
            if self.dead:
                raise _Killed
            result = change(*args, **options)  # what fails, such as making a folder that is there, is no change
            self.left -= 1
            self.dead = self.left == 0
            if self.dead:
                raise _Killed
            return result

        return counted


class _Reached(Exception):
    """Set-up is over, and the engine would begin."""


def _no_engine(folder, scenario, site_app):
    raise _Reached


def _papers(folder):
    """What set-up writes, but for what is drawn again each time: keys, the run's id and what is signed with them."""
    names = (
        "policy.toml",
        "staff.toml",
        "records.jsonl",
        "accounts.jsonl",
        "consent.csv",
        "response.toml",
        "scenario.json",
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in names}


@pytest.fixture(scope="module")
def strict(phantom):
    """A scenario whose hospitals have every file that there is: keys, agreements, registers, sealing keys."""
    path = ROOT / "simulations" / "policy-open.toml"
    return load_scenario(path, [*tiny_settings(phantom), *BRIEF, *STRICT])


@pytest.fixture(scope="module")
def set_up(tmp_path_factory, strict):
    folder = tmp_path_factory.mktemp("set-up") / "run"
    with pytest.raises(_Reached):
        simulate(strict, folder, carry_out=_no_engine)
    return folder


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_write_of_set_up_is_resumed_by_the_same_command(tmp_path, strict, set_up, phantom, after):
    """A kill leaves what was written until then, drafts too; nothing is cleaned up by a dead process."""
    found, number = MnMs().read(phantom), 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MnMs, "read", lambda self, folder: found)
            kill = _Kill(patch, number, after=after)
            with pytest.raises((_Killed, _Reached)):
                simulate(strict, folder, carry_out=_no_engine)
        if not kill.dead:
            break
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MnMs, "read", lambda self, folder: found)
            with pytest.raises(_Reached):
                simulate(strict, folder, carry_out=_no_engine)
        assert _papers(folder) == _papers(set_up), f"write {number}"
        for home in (folder / "sites").iterdir():
            SiteKey.load(home / "vault" / "key.pem")
            SealingKey.load(home / "sealing.key")
            assert read_agreement(home / "agreement.json") is not None
        shutil.rmtree(folder)
    assert number > 3 * 8, "each of three hospitals has eight files at least"


def test_a_second_run_in_a_folder_is_told_that_it_is_in_use_and_the_first_is_whole(
    tmp_path, scenario, finished, monkeypatch
):
    folder, said = tmp_path / "run", []
    measure = PrivacySF.actions["measure"]

    def meanwhile(method, site, order):
        if not said:
            with pytest.raises(FolderError, match=rf"in use by process {os.getpid()}\b") as caught:
                simulate(scenario, folder)
            said.append(caught.value.status)
            with pytest.raises(FolderError, match="in use by process"):
                withdraw(folder, "centre1", "C1D5H7")
        return measure(method, site, order)

    monkeypatch.setattr(PrivacySF, "actions", {**PrivacySF.actions, "measure": meanwhile})
    result = simulate(scenario, folder)
    assert said == [2]
    assert {site.status for site in result.sites.values()} == {"ok"}
    assert result.metrics == finished[1].metrics
    assert not (folder / ".lock").exists()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, scenario):
    """A run that was stopped when the network had been trained and every shard was there. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"

    def stop(method, site, order):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrivacySF, "actions", {**PrivacySF.actions, "decode": stop})
        with pytest.raises(KeyboardInterrupt):
            simulate(scenario, folder)
    return folder


SHARD = "server/codes/centre1/send_image_codes/00000.safetensors"


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("scenario.json", "changed", "scenario.json"),
        ("scenario.json", "missing", "is no run folder"),
        ("run-id", "missing", "run-id is missing"),
        (SHARD, "changed", "00000.safetensors was changed: it is not what centre1 sent. Delete it and run the same"),
        (SHARD, "cut", "00000.safetensors was changed"),
        (SHARD, "missing", ""),
        (SHARD.replace("safetensors", "json"), "empty", "00000.json is empty. Delete it and run the same"),
        ("server/mapping.safetensors", "changed", "mapping.safetensors was changed"),
        ("server/mapping.safetensors", "cut", "mapping.safetensors is cut short"),
        ("server/accounts.json", "changed", "accounts.json"),
        ("server/accounts.json", "missing", "accounts.json is missing"),
        ("server/identities.json", "cut", "identities.json is cut short"),
        ("server/identities.json", "missing", "identities.json is missing"),
        ("server/ledger.jsonl", "changed", "of ledger.jsonl was changed"),
        ("server/ledger.jsonl", "missing", "the file is gone"),
        ("server/key.pem", "missing", "key.pem is missing"),
        ("server/encryption.pem", "empty", "encryption.pem holds no X25519 private key"),
        ("sites/centre1/cohort.json", "changed", "cohort.json was changed"),
        ("sites/centre1/station.json", "missing", "station.json is missing"),
        ("sites/centre1/vault/key.pem", "missing", "key.pem is missing"),
        ("sites/centre1/vault/mask-codec.safetensors", "changed", AT_THE_SITE),
        ("sites/centre1/vault/testing-slices.safetensors", "changed", AT_THE_SITE),
    ],
)
def test_a_damaged_file_of_an_interrupted_run_is_one_sentence_or_changes_nothing(
    tmp_path, scenario, interrupted, finished, name, damage, says
):
    """says: with what the same command is refused; empty if it goes on, and then to the same numbers and bytes."""
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    half = len(whole) // 2
    bodies = {"changed": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :], "cut": whole[:half], "empty": b""}
    if damage in bodies:
        path.write_bytes(bodies[damage])
        path.chmod(0o600)
    if says == AT_THE_SITE:  # the others go on
        result = simulate(scenario, folder)
        assert {name: site.status == "ok" for name, site in result.sites.items()} == ALL_BUT_THE_FIRST
        assert says in result.sites["centre1"].status
        return
    if says:
        with pytest.raises(FedprivsegError) as caught:
            simulate(scenario, folder)
        assert says in str(caught.value)
        assert caught.value.status in (1, 2)
        assert "\n" not in str(caught.value)
        return
    result = simulate(scenario, folder)
    assert {site.status for site in result.sites.values()} == {"ok"}
    assert result.metrics == finished[1].metrics
    assert traffic(result) == traffic(finished[1])


def test_a_shard_that_was_exchanged_with_its_note_is_not_what_the_ledger_tells(tmp_path, scenario, interrupted):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    payload = Payload.decode((folder / SHARD).read_bytes())
    other = replace(payload, arrays={name: value + 1 for name, value in payload.arrays.items()})
    body = other.encode()
    Store(folder / "server" / "codes").put("send_image_codes", Arrival(other, body, digest(body)))
    with pytest.raises(FolderError, match="it is not what centre1 sent"):
        simulate(scenario, folder)
    (folder / SHARD).unlink()
    assert simulate(scenario, folder).sites["centre1"].status == "ok"


def test_the_table_of_measures_and_who_took_part_are_held_against_the_result(tmp_path, finished):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    path = folder / "metrics.csv"
    path.write_text(path.read_text().replace("centre1-t01,ED,LV,", "centre1-t01,ED,LV,1", 1))
    with pytest.raises(FolderError, match="metrics.csv was changed after the run ended"):
        read_result(folder)
    shutil.copy(finished[0] / "metrics.csv", path)
    read_result(folder)
    (folder / "sites/centre1/cohort.json").unlink()
    with pytest.raises(FolderError, match="cohort.json is missing"):
        check_files(folder)


def test_a_result_of_an_earlier_release_has_no_digests_and_is_read(tmp_path, finished):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    content = json.loads((folder / "result.json").read_text())
    del content["digests"], content["sha256"]
    (folder / "result.json").write_text(json.dumps(content))
    assert read_result(folder) == finished[1]
    check_files(folder)


def test_a_folder_of_another_scenario_is_refused(finished, quickstart, phantom):
    other = load_scenario(quickstart, [*tiny_settings(phantom), *BRIEF, "seed=7"])
    with pytest.raises(FolderError, match="another scenario: seed is 0 there and 7 here; choose another") as caught:
        simulate(other, finished[0])
    assert caught.value.status == 2


def test_a_folder_with_other_things_in_it_is_refused(tmp_path, scenario):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FolderError, match="no run folder and not empty"):
        simulate(scenario, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind", ["absent", "empty", "file", "no release"])
def test_data_that_is_no_release_is_refused_and_nothing_written(tmp_path, quickstart, kind):
    source = tmp_path / "data"
    if kind == "empty":
        source.mkdir()
    elif kind == "file":
        source.write_text("x")
    elif kind == "no release":
        (source / "Training").mkdir(parents=True)
        (source / "notes.txt").write_text("x")
    settings = [*tiny_settings(source), *BRIEF]
    with pytest.raises(DataError) as caught:
        simulate(load_scenario(quickstart, settings), tmp_path / "run")
    assert caught.value.status == 2
    assert not (tmp_path / "run").exists()


def test_a_site_without_subjects_is_refused_and_nothing_written(tmp_path, quickstart, phantom):
    scenario = load_scenario(quickstart, [*tiny_settings(phantom), 'sites=["centre1", "centre5"]'])
    with pytest.raises(DataError, match="centre 5 has no labelled subject.*1, 2, 3"):
        simulate(scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unwritable_place_is_refused(tmp_path, scenario):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FolderError, match="cannot be written"):
        simulate(scenario, tmp_path / "file" / "run")


def test_a_full_disk_is_refused_and_nothing_written(tmp_path, scenario, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10 * 2**20))
    with pytest.raises(FolderError, match="only 10 MiB are free"):
        simulate(scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _misbehave(monkeypatch, action, change, site="centre2"):
    """From now on `action` at one site sends what `change` makes of its payload."""
    right = PrivacySF.actions[action]

    def wrong(method, bench, order):
        payload = right(method, bench, order)
        return change(payload) if bench.name == site else payload

    monkeypatch.setattr(PrivacySF, "actions", {**PrivacySF.actions, action: wrong})


def test_a_site_that_sends_the_wrong_shape_leaves_and_the_others_go_on(tmp_path, scenario, monkeypatch):
    def cut(payload):
        return replace(payload, arrays={"codes": payload.arrays["codes"][:, :1]})

    _misbehave(monkeypatch, "send_image_codes", cut)
    result = simulate(scenario, tmp_path / "run")
    assert "blocked by site policy in 'send_image_codes' (declaration.shape)" in result.sites["centre2"].status
    assert result.sites["centre2"].dice.mean is None
    assert {name for name, site in result.sites.items() if site.status == "ok"} == {"centre1", "centre3"}


def test_a_site_whose_gate_refuses_leaves_and_the_others_go_on(tmp_path, scenario, monkeypatch):
    from fedprivseg.core.kinds import RAW

    _misbehave(monkeypatch, "send_image_codes", lambda payload: replace(payload, kind=RAW))
    result = simulate(scenario, tmp_path / "run")
    assert "blocked by site policy" in result.sites["centre2"].status
    assert "raw-data.not-allowed" in result.sites["centre2"].status


def test_too_few_sites_end_the_run_with_status_three(tmp_path, quickstart, phantom, monkeypatch):
    scenario = load_scenario(quickstart, [*tiny_settings(phantom), *BRIEF, "quorum=3"])
    _misbehave(monkeypatch, "send_image_codes", lambda payload: replace(payload, purpose="infer"))
    with pytest.raises(QuorumError, match="quorum is 3") as caught:
        simulate(scenario, tmp_path / "run")
    assert caught.value.status == 3
    assert issubclass(QuorumError, Exception)
    assert not issubclass(QuorumError, RunError)


def test_means_are_over_subjects_and_phases():
    # LV: (1 + 0.5) / 2 over the two cells that are defined; MYO: 0 everywhere; RV: nowhere defined.
    values = np.array([[[1.0, 0.0, np.nan], [0.5, 0.0, np.nan]]])
    scores = _scores(values, default_task())
    assert scores.structures == {"LV": 0.75, "MYO": 0.0, "RV": None}
    assert (scores.mean, scores.missing) == (0.375, 2)
    assert _scores(None, default_task()).mean is None
    assert _scores(np.empty((0, 2, 3)), default_task()).mean is None


def test_rows_suit_a_data_frame(finished):
    rows = finished[1].rows()
    assert {tuple(row) for row in rows} == {("site", "subject", "phase", "structure", "dice", "hd95_mm", "assd_mm")}
    assert {row["subject"] for row in rows if row["site"] == "centre1"} == {"centre1-t01"}


def test_a_missing_result_says_what_to_do(tmp_path):
    with pytest.raises(FolderError, match="run the scenario into it first"):
        read_result(Path(tmp_path))


def test_a_withdrawal_that_was_asked_for_twice_is_of_one_subject(tmp_path):
    said = {"day": "2026-03-01", "line": 8, "shards": [], "models": [], "at_sites": []}
    people = [("centre1", "a1"), ("centre1", "a1"), ("centre2", "b1"), ("centre2", "b2")]
    content = [{**said, "site": site, "pseudonym": pseudonym} for site, pseudonym in people]
    (tmp_path / "withdrawals.json").write_text(json.dumps(content))
    assert [note.split(" was ")[0] for note in _withdrawn(tmp_path)] == [
        "centre1: consent of 1 subject",
        "centre2: consent of 2 subjects",
    ]


def test_warnings_about_the_release_are_counted_without_any_code(finished, phantom):
    """A site that states ACDC's order of labels for masks that have the order of M&Ms: each of its three is warned of at ED and
    at ES. A sound release has no such note."""
    assert finished[1].notes == finished[1].failures
    release = MnMs().read(phantom)
    wrong = SiteConfig(name="centre1", centre=1, labels={1: "RV", 2: "MYO", 3: "LV"})
    right = SiteConfig(name="centre2", centre=2)
    cohorts = {site.name: cohort(release.subjects, site, DataConfig()) for site in (wrong, right)}
    (note,) = _warned(MnMs(), release, cohorts)
    assert "label-order (6)" in note
    assert "`fedprivseg data check`" in note
    assert not any(subject.code in note for subject in release.subjects)


def test_a_frame_without_signal_trains_nobody(tmp_path, phantom, quickstart):
    """Its site cannot take part, as with any other fault of a frame: the type of the error leaves it, and its own log names the
    fault."""
    release = tmp_path / "release"
    shutil.copytree(phantom, release)
    subject = next(s for s in MnMs().read(release).subjects if s.centre == 2 and s.split == "train")
    image = nib.load(subject.image)
    voxels = np.asarray(image.dataobj).copy()
    voxels[..., subject.frames["ES"]] = 0
    nib.Nifti1Image(voxels, image.affine).to_filename(subject.image)
    result = simulate(load_scenario(quickstart, [*tiny_settings(release), *BRIEF]), tmp_path / "run")
    assert "failed in 'describe': DataError" in result.sites["centre2"].status
    assert subject.code not in result.sites["centre2"].status
    assert "no-signal" in (tmp_path / "run/sites/centre2/errors.log").read_text()
