"""What the terminal shows while a run is under way: one bar for the server and one for each site, on every engine.

It reads the small progress files of the run folder, so it works the same for parties in this process and under Ray. In a
pipe it prints one plain line whenever a party begins a new stage.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedprivseg.core.progress import Step, read_progress
from fedprivseg.core.runfolder import RunFolder

_REFRESH_S = 0.2


class Display:
    """A context: inside it, progress of the run in `folder` is shown on `console`."""

    def __init__(self, folder: Path, sites: Sequence[str], console: Console) -> None:
        run = RunFolder(folder)
        self._files = {"server": run.server.progress, **{site: run.site(site).progress for site in sites}}
        self._console = console
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live if console.is_terminal else self._plain, daemon=True)

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _steps(self) -> dict[str, Step]:
        found = {party: read_progress(path) for party, path in self._files.items()}
        return {party: step for party, step in found.items() if step is not None}

    def _plain(self) -> None:
        told: dict[str, str] = {}
        while True:
            ended = self._stop.wait(_REFRESH_S)
            for party, step in self._steps().items():
                if told.get(party) != step.stage:
                    told[party] = step.stage
                    self._console.print(f"{party}: {step.stage}", highlight=False)
            if ended:
                return

    def _live(self) -> None:
        columns = (
            TextColumn("{task.fields[party]:<10}", style="bold", markup=False),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            TextColumn("{task.description}", style="cyan", markup=False),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            tasks: dict[str, TaskID] = {
                party: progress.add_task("waiting", party=party, total=None, start=False) for party in self._files
            }
            told: dict[str, str] = {}
            while not self._stop.wait(_REFRESH_S):
                for party, step in self._steps().items():
                    if told.get(party) != step.stage:
                        told[party] = step.stage
                        progress.reset(tasks[party], start=True, description=step.stage)
                    progress.update(tasks[party], completed=step.done, total=step.total or None)
