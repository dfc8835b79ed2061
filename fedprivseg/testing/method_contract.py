"""What every method keeps, on three phantom sites: it runs to a result, lets out what it declares and nothing else."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from fedprivseg.core.config import (
    DataConfig,
    GridConfig,
    MethodConfig,
    PolicyConfig,
    ResourceConfig,
    Scenario,
    SiteConfig,
)
from fedprivseg.core.errors import ScenarioError
from fedprivseg.core.kinds import KINDS, RAW
from fedprivseg.core.results import Result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.core.task import default_task
from fedprivseg.governance.ledger import ledger
from fedprivseg.imaging.mnms.release import MnMs
from fedprivseg.methods import METHODS, Method, resolve
from fedprivseg.study.run import simulate
from fedprivseg.testing.contract import CENTRES, Contract

BRIEF: Mapping[str, Any] = {
    "image_steps": 3,
    "mask_steps": 3,
    "mapping_steps": 3,
    "views": 2,
    "shard_slices": 24,
    "rounds": 2,
    "local_steps": 2,
    "steps": 3,
    "curve_points": 1,
    "test_views": 2,
    "start_subjects": 2,
    "start_steps": 2,
    "public_slices": 4,
    "distil_steps": 2,
    "averaging": {"rounds": 1, "local_steps": 1, "test_views": 1, "curve_points": 1},
}
"""Parameters that make a method's run last seconds, those of them that it has."""


@dataclass(frozen=True)
class FinishedRun:
    """A run of one variant of a method.

    Attributes:
        folder: the run's folder.
        world: the global state of random numbers, and torch's threads, before the run.
    """

    method: type[Method]
    folder: Path
    result: Result
    world: list[Any]


class MethodContract(Contract):
    """What every method keeps.

    Attributes:
        parts: the methods.
        brief: parameters with which a run lasts seconds; those that a method does not have are left out.
    """

    registry = METHODS
    brief: ClassVar[Mapping[str, Any]] = BRIEF

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A run of every variant, for all tests that look at one."""
        super().pytest_generate_tests(metafunc)
        if "finished" in metafunc.fixturenames:
            cases = [(part, variant) for part in self.parts for variant in part.variants]
            ids = [f"{part.name}-{variant}" for part, variant in cases]
            metafunc.parametrize("finished", cases, ids=ids, indirect=True, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def finished(
        cls, request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> FinishedRun:
        """A finished run of one variant on three sites of the phantom."""
        # Some library draws a random number when it is imported, and may.
        import fedprivseg.runtime.server.server_app
        import fedprivseg.runtime.site.client_app  # noqa: F401

        method, variant = request.param
        world = _world()
        known = method.parameters_type.model_fields
        parameters = {name: value for name, value in cls.brief.items() if name in known}
        scenario = Scenario(
            name="contract",
            engine="inline",
            sites=tuple(
                SiteConfig(name=f"centre{centre}", centre=centre, policy={"profile": "open-research"})
                for centre in CENTRES
            ),
            data=DataConfig(source=str(release)),
            grid=GridConfig(height=32, width=32, spacing=6.0),
            method=MethodConfig(name=method.name, variant=variant, parameters=parameters),
            resources=ResourceConfig(cpus=1, sites_at_once=1),
            policy=PolicyConfig(raw_sharing="allowed" if RAW in method.exports else "forbidden"),
        )
        folder = tmp_path_factory.mktemp(f"{method.name}-{variant}") / "run"
        return FinishedRun(method, folder, simulate(scenario, folder), world)

    def test_its_parameters_have_defaults(self, part: type[Method]) -> None:
        """Every variant is made from them, and an unknown parameter is refused."""
        assert part.title
        assert part.exports <= frozenset(KINDS)
        assert set(part.declares) == set(part.actions), "every action declares what answers it"
        for field in part.parameters_type.model_fields.values():
            assert not field.is_required(), "every parameter has a default"
        for variant in part.variants:
            assert resolve(MethodConfig(name=part.name, variant=variant)).variant == variant
        with pytest.raises(ScenarioError, match="nonsense"):
            resolve(MethodConfig(name=part.name, parameters={"nonsense": 1}))

    def test_it_runs_to_a_result_at_every_site(self, finished: FinishedRun) -> None:
        """Nobody is blocked, nobody fails, everybody is measured."""
        result = finished.result
        assert result.method == finished.method.name
        assert set(result.sites) == {f"centre{centre}" for centre in CENTRES}
        for site in result.sites.values():
            assert site.status == "ok"
            assert site.subjects_train > 0
            assert site.subjects_test > 0
            assert site.bytes_up > 0
            assert site.dice.mean is not None
            assert 0 <= site.dice.mean <= 1
        tested = sum(site.subjects_test for site in result.sites.values())
        assert len(result.rows()) == tested * len(default_task().times) * len(default_task().structures)

    def test_only_declared_kinds_left(self, finished: FinishedRun) -> None:
        """The sites' ledgers show nothing that the method did not declare."""
        declared = resolve(MethodConfig(**finished.result.scenario["method"])).declared
        assert finished.result.exports == tuple(sorted(declared))
        for site in RunFolder(finished.folder).sites:
            ledger.verify(site.ledger)
            left = {line.facts["kind"] for line in ledger.read(site.ledger) if line.event == "release"}
            assert left <= declared <= finished.method.exports
            assert (RAW in left) == (RAW in declared)

    def test_bytes_are_those_of_the_ledger(self, finished: FinishedRun) -> None:
        """What a site is said to have sent is what its gate let out."""
        for name, site in finished.result.sites.items():
            lines = ledger.read(RunFolder(finished.folder).site(name).ledger)
            released = [line for line in lines if line.event == "release" and line.facts["action"] != "describe"]
            sizes = [line.facts["bytes"] for line in released]
            assert site.bytes_up == sum(size for size in sizes if isinstance(size, int))

    def test_the_worlds_random_state_and_threads_are_untouched(self, finished: FinishedRun) -> None:
        """Randomness is an argument: nobody seeds the world."""
        np.testing.assert_equal(_world(), finished.world)

    def test_nothing_names_a_patient_outside_the_sites(self, finished: FinishedRun, release: Path) -> None:
        """No code of a subject stands in a file outside of ``sites/``."""
        codes = [subject.code.encode() for subject in MnMs().read(release).subjects]
        for path in finished.folder.rglob("*"):
            if path.is_file() and "sites" not in path.relative_to(finished.folder).parts:
                assert not any(code in path.read_bytes() for code in codes), path.name


def _world() -> list[Any]:
    """The global state of random numbers, and torch's threads."""
    state: Any = np.random.get_state()
    return [random.getstate(), state[1].copy(), torch.random.get_rng_state().numpy(), torch.get_num_threads()]
