"""The server program of a simulation: that of a real one, on a grid on which happens what the scenario says goes wrong."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedprivseg.core.results import read_scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.runtime.server.server_app import main as conduct
from fedprivseg.study.faults.network import FaultyGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the scenario; without faults on the engine's own grid."""
    run = RunFolder(Path(str(context.run_config["run-folder"])))
    scenario = read_scenario(run.path)
    with ExitStack() as machine:
        conduct(FaultyGrid(grid, scenario, run, machine) if scenario.faults else grid, context)
