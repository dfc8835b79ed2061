"""The server program: a Flower `ServerApp` that conducts a method over whatever grid it is given.

Run configuration (``context.run_config``): ``run-folder``, which holds ``scenario.json`` and ``run-id``. Everything that the
server writes lies under ``<run-folder>/server``.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedprivseg.core.compute import device, threads
from fedprivseg.core.files import whole
from fedprivseg.core.results import read_run_id, read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.methods import resolve
from fedprivseg.runtime.server.federation import GridFederation

app = ServerApp()

IN_HAND = 4
"""How many orders for each site that works at once a simulation has in hand: more of them would wait in memory."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the scenario's method; each site's METRIC payload ends in ``server/metrics/<site>.safetensors``."""
    run = RunFolder(Path(str(context.run_config["run-folder"])))
    scenario, run_id = read_scenario(run.path), read_run_id(run.path)
    at_once = {"inline": 1, "ray": IN_HAND * scenario.resources.sites_at_once}.get(scenario.engine)
    with threads(scenario.resources.cpus):
        place = device(scenario.resources.gpus)
        federation = GridFederation(grid, scenario, run.server, run_id, place, at_once)
        if run.server.seed.exists():
            federation.seed = int(run.server.seed.read_text())
        for site, payload in resolve(scenario.method).conduct(federation).items():
            path = run.server.metrics(site)
            path.parent.mkdir(exist_ok=True)
            with whole(path) as draft:
                draft.write_bytes(payload.encode())
