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
from fedprivseg.methods import resolve
from fedprivseg.runtime.server.federation import GridFederation

app = ServerApp()

POLL_S = 0.02
"""How often the server of a simulation looks for replies, in seconds."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the scenario's method; each site's METRIC payload ends in ``server/metrics/<site>.safetensors``."""
    folder = Path(str(context.run_config["run-folder"]))
    scenario = read_scenario(folder)
    method = resolve(scenario.method)
    run_id = read_run_id(folder)
    metrics = folder / "server" / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    if hasattr(
        grid, "pull_interval"
    ):  # Flower's simulation asks for replies every 0.1 s, which is lost in every exchange
        grid.pull_interval = POLL_S
    with threads(scenario.resources.cpus):
        federation = GridFederation(grid, scenario, folder / "server", run_id, device(scenario.resources.gpus))
        for site, payload in method.conduct(federation).items():
            with whole(metrics / f"{site}.safetensors") as draft:
                draft.write_bytes(payload.encode())
