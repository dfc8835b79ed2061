"""The cache: where it lies, and what is said before a run if it cannot be written."""

from __future__ import annotations

import pytest
from disk import read_only

from fedprivseg.core.cache import CACHE, cache_folder, require_cache
from fedprivseg.core.errors import FolderError
from fedprivseg.runtime.engines import begun
from fedprivseg.study.run import simulate


def test_it_is_made_where_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / "a" / "b"))
    require_cache()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_it_lies_under_home_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(CACHE, "")
    assert cache_folder() == tmp_path / ".cache" / "fedprivseg"


def _says(ask, *words):
    with pytest.raises(FolderError) as caught:
        ask()
    for word in (*words, f"set {CACHE} to a folder that can be written"):
        assert word in str(caught.value)
    assert caught.value.status == 2


def test_a_home_that_cannot_be_written_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv(CACHE)
    _says(require_cache, "the cache of phantoms and gridded images, /dev/null/.cache", "(Not a directory)")


def test_a_read_only_disk_is_found_out_by_writing(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    with read_only(tmp_path):
        _says(require_cache, str(tmp_path), "(Read-only file system)")


def test_a_user_without_a_home_is_told_so(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE)
    monkeypatch.setattr("fedprivseg.core.cache.Path.home", nobody)
    _says(require_cache, "there is no home folder")


def test_a_cache_that_no_json_can_name_is_refused(monkeypatch):
    monkeypatch.setenv(CACHE, "/data/\udcff")
    _says(require_cache, r"'/data/\udcff' is no text in UTF-8")


def test_nothing_runs_before_the_cache_is_there(tiny_scenario, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, "/dev/null/cache")
    _says(lambda: simulate(tiny_scenario, tmp_path / "run"), "/dev/null/cache")
    ray = tiny_scenario.model_copy(update={"engine": "ray"})
    monkeypatch.setattr(
        "fedprivseg.runtime.engines.ray_cluster.Cluster.__init__", lambda *_: pytest.fail("Ray was begun")
    )
    _says(begun(ray, tmp_path / "run").__enter__, "/dev/null/cache")
    assert not (tmp_path / "run").exists()
