"""A method that computes nothing: a site sends the weights that came back as they are, through the real gate.

What a run of it takes is what this package adds to the bytes that travel. `installed` makes it known as a plug-in of another
package would be, also to Ray's workers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from fedprivseg.core.config import DataConfig, GridConfig, MethodConfig, ResourceConfig, Scenario, SiteConfig
from fedprivseg.core.expected import MOST_WEIGHT, Array, Expected
from fedprivseg.core.kinds import METRIC, STATUS, WEIGHTS
from fedprivseg.core.records import MEASURES, Order, Payload, Slices, Subject
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.sitefolder.notes import INTAKE, PARTICIPANTS, Notes
from fedprivseg.governance.sitefolder.vault import Vault
from fedprivseg.imaging.splits import COHORT, Cohort
from fedprivseg.methods.method import Action, Declaration, Method, Parameters, measured_declared
from fedprivseg.runtime.site.attribution import owners_name
from fedprivseg.runtime.site.likeness import PROFILE
from fedprivseg.study.run import _prepare

HERE = Path(__file__).parent
TIMES = "times.json"
"""In the server's folder: a list of ``{"sites", "bytes", "cpu_s", "wall_s", "rss_mb"}``, one an exchange, in their order."""


class StubParameters(Parameters):
    """What is exchanged.

    Attributes:
        exchanges: number of sites and bytes each way, one after the other.
    """

    exchanges: tuple[tuple[int, int], ...] = ()


def echo(method: Stub, site, order: Order) -> Payload:
    """The weights of the order, sent back."""
    assert order.answer is not None
    return Payload(
        WEIGHTS, site.name, "train", order.answer.arrays, shard=order.number, shards=order.number + 1, history=("echo",)
    )


def measure(method: Stub, site, order: Order) -> Payload:
    """As many measures as the site has test subjects, all 0."""
    cells = np.zeros((len(site.test), len(site.task.times), len(site.task.structures)))
    values = dict.fromkeys(MEASURES, cells)
    known = {f"{name}_known": np.ones(cells.shape, np.uint8) for name in MEASURES}
    return Payload(METRIC, site.name, "measure", values | known, history=("measure",))


@final
class Stub(Method):
    """Weights there and back."""

    name = "stub"
    title = "Stub"
    paper = "none: a benchmark"
    exports = frozenset({WEIGHTS, METRIC, STATUS})
    parameters_type = StubParameters
    parameters: StubParameters
    actions: ClassVar[Mapping[str, Action]] = {"echo": echo, "measure": measure}
    declares: ClassVar[Mapping[str, Declaration]] = {
        "echo": Expected(
            WEIGHTS,
            "train",
            {"weights": Array("float32", (None,), -MOST_WEIGHT, MOST_WEIGHT, longest=1 << 26)},
            ("echo",),
        ),
        "measure": measured_declared,
    }

    def announced(self, order: Order):
        """As methods in rounds do."""
        return None if order.answer is None else order.answer.arrays

    def conduct(self, federation) -> dict[str, Payload]:
        """One exchange after the other."""
        times = []
        for number, (sites, size) in enumerate(self.parameters.exchanges):
            arrays = {"weights": weights(size, number)}
            names = federation.sites[:sites]
            cpu, wall = time.process_time(), time.perf_counter()
            answers = {site: federation.answer(WEIGHTS, site, arrays, number) for site in names}
            replies = self.ask(federation, "echo", number=number, answers=answers, sites=names)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            assert len(replies) == sites, federation.accounts
            assert all(np.array_equal(reply.arrays["weights"], arrays["weights"]) for reply in replies.values())
            times.append({"sites": sites, "bytes": size, "cpu_s": spent[0], "wall_s": spent[1], "rss_mb": rss_mb()})
            del replies, answers
            (federation.folder / TIMES).write_text(json.dumps(times))
        return self.ask(federation, "measure")

    def predict(self, site, models, images):
        """There is no network."""
        raise NotImplementedError


def weights(size: int, draw: int) -> np.ndarray:
    """Weights of `size` bytes, float32."""
    return np.random.default_rng(draw).standard_normal(size // 4, dtype=np.float32)


def rss_mb() -> float:
    """Memory of this process now, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def installed(folder: Path) -> None:
    """Make the method known to this process and to those that it begins. folder: where its metadata are written."""
    distribution = folder / "fedprivseg_stub-0.dist-info"
    distribution.mkdir(parents=True, exist_ok=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: fedprivseg-stub\nVersion: 0\n")
    (distribution / "entry_points.txt").write_text("[fedprivseg.methods]\nstub = stub_method:Stub\n")
    own = [str(folder), str(HERE)]
    sys.path[:0] = own
    os.environ["PYTHONPATH"] = os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


def prepared(
    folder: Path,
    sites: int,
    exchanges: list[tuple[int, int]],
    engine: str,
    policy: Mapping[str, object] = {},
    **resources,
) -> Scenario:
    """A run that is prepared in `folder`: `sites` hospitals, each of which enrolled six people and has made their slices.

    policy: what the sites' policies say besides ``profile = "open-research"``.
    """
    names = [f"site{number:04d}" for number in range(sites)]
    scenario = Scenario(
        name="stub",
        engine=engine,
        sites=tuple(
            SiteConfig(name=name, centre=name, policy={"profile": "open-research", **policy}) for name in names
        ),
        data=DataConfig(source=str(folder.parent / "release")),
        grid=GridConfig(height=16, width=16, spacing=6.0),
        method=MethodConfig(name="stub", parameters={"exchanges": exchanges}),
        resources=ResourceConfig(**resources),
    )
    (folder.parent / "release").mkdir(parents=True, exist_ok=True)
    _prepare(folder, scenario, folder.parent / "release", dict.fromkeys(names, Cohort((), ())))
    for name in names:
        _enrol(RunFolder(folder).site(name), scenario)
    return scenario


def _enrol(home, scenario: Scenario) -> None:
    codes = [f"P{number:02d}" for number in range(6)]
    people = tuple(
        Subject(code, home.name, "train", True, {}, home.path / code, None, scenario.task.names) for code in codes
    )
    cohort = Cohort(people[:4], people[4:])
    notes = Notes(home.path)
    facts = {"level": 3, "day": "2026-01-01"}
    notes.write(INTAKE, {"subjects": codes, "train": 4, "facts": facts, "recorded": False})
    notes.write(PARTICIPANTS, COHORT.dump_python(cohort, mode="json"))
    vault = Vault(home.vault)
    for side, count in (("train", 4), ("test", 2)):
        slices = Slices(
            np.zeros((count, 16, 16), np.float32), np.zeros((count, 16, 16), np.uint8), np.arange(count, dtype=np.int32)
        )
        vault.save(owners_name(side), {"owners": slices.subjects})
        vault.save(f"{side}ing-slices", vars(slices))
    vault.save(PROFILE, {"none": np.zeros(1)})
