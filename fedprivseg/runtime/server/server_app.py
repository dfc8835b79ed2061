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

POLL_S = 0.02
"""How often the server of a simulation looks for replies, in seconds."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the scenario's method; each site's METRIC payload ends in ``server/metrics/<site>.safetensors``."""
    run = RunFolder(Path(str(context.run_config["run-folder"])))
    scenario, run_id = read_scenario(run.path), read_run_id(run.path)
    if hasattr(grid, "pull_interval"):
        grid.pull_interval = POLL_S  # Flower's simulation asks every 0.1 s, which is lost in every exchange
    with threads(scenario.resources.cpus):
        federation = GridFederation(grid, scenario, run.server, run_id, device(scenario.resources.gpus))
        if run.server.seed.exists():
            federation.seed = int(run.server.seed.read_text())
        for site, payload in resolve(scenario.method).conduct(federation).items():
            path = run.server.metrics(site)
            path.parent.mkdir(exist_ok=True)
            with whole(path) as draft:
                draft.write_bytes(payload.encode())
