"""The GPUs that a scenario asks of a machine: there, or refused before anything runs."""

from __future__ import annotations

import pytest
import torch

from fedprivseg.core.compute import device, require_gpus
from fedprivseg.core.errors import RequestError
from fedprivseg.runtime.engines import begun
from fedprivseg.study.benchmark import Plan, planned
from fedprivseg.study.run import simulate


@pytest.fixture
def gpus(monkeypatch):
    """Gives the machine so many GPUs."""

    def give(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return give


@pytest.mark.parametrize(("wanted", "there"), [(0, 0), (0, 2), (0.5, 1), (1, 1), (2, 2)])
def test_what_is_there_may_be_asked_for(gpus, wanted, there):
    gpus(there)
    require_gpus(wanted)
    assert device(wanted) == ("cuda" if wanted else "cpu")


@pytest.mark.parametrize(
    ("wanted", "there", "says"),
    [
        (1, 0, "gives gpus = 1, and torch sees none here"),
        (0.5, 0, "set resources.gpus to 0 for the CPU alone"),
        (2, 1, "gives gpus = 2, and torch sees 1 here"),
        (64, 8, "set resources.gpus to at most 8"),
    ],
)
def test_what_is_not_there_is_refused(gpus, wanted, there, says):
    gpus(there)
    with pytest.raises(RequestError) as caught:
        require_gpus(wanted)
    assert says in str(caught.value)
    assert caught.value.status == 2
    with pytest.raises(RequestError):
        device(wanted)


def test_gpus_that_are_not_there_are_refused_before_anything_runs(gpus, tiny_scenario, tmp_path, monkeypatch):
    gpus(0)
    resources = tiny_scenario.resources.model_copy(update={"gpus": 1.0})
    asked = tiny_scenario.model_copy(update={"resources": resources})
    with pytest.raises(RequestError, match="torch sees none"):
        simulate(asked, tmp_path / "run")
    monkeypatch.setattr(
        "fedprivseg.runtime.engines.ray_cluster.Cluster.__init__", lambda *_: pytest.fail("Ray was begun")
    )
    with (
        pytest.raises(RequestError, match="torch sees none"),
        begun(asked.model_copy(update={"engine": "ray"}), tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_asks_for_no_gpu(gpus, tiny_scenario, tmp_path):
    gpus(0)
    (tmp_path / "result.json").touch()
    resources = tiny_scenario.resources.model_copy(update={"gpus": 1.0})
    with begun(tiny_scenario.model_copy(update={"resources": resources}), tmp_path):
        pass


def test_a_benchmark_asks_for_every_scenarios_gpus_before_the_first_runs(gpus, quickstart, tmp_path, monkeypatch):
    gpus(0)
    text = quickstart.read_text()
    folder = tmp_path / "simulations"
    folder.mkdir()
    (tmp_path / "sites").symlink_to(quickstart.parent.parent / "sites")
    (folder / "a.toml").write_text(text)
    (folder / "b.toml").write_text(text.replace('name = "quickstart"', 'name = "b"') + "gpus = 1\n")
    monkeypatch.setattr("fedprivseg.study.pipeline.run", lambda *_, **__: pytest.fail("a scenario was run"))
    with pytest.raises(RequestError, match="torch sees none"):
        planned(folder, tmp_path / "runs", Plan((0,)))
