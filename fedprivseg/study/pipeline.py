"""What is done with a run, stage by stage: what follows on what is decided here, and nowhere else.

| stage    | reads                                    | writes                                            |
| -------- | ---------------------------------------- | ------------------------------------------------- |
| `run`    | the scenario, the images                 | the run's folder up to ``result.json``            |
| `assess` | ledgers, policies, the run's documents   | ``compliance.json``                               |
| `attack` | what was released                        | ``attacks.json``, ``attacks.safetensors``         |
| `report` | all of these; images and who was tested  | ``report.html``                                   |

Every stage may be done again. `run` and `attack` go on to the report, and a report is of a run that was assessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import QuorumError
from fedprivseg.core.files import require_writable
from fedprivseg.core.leakage_result import Budget, Leakage
from fedprivseg.core.results import Result, read_result
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.compliance import Finding
from fedprivseg.governance.compliance import assess as judge_and_write

if TYPE_CHECKING:
    from fedprivseg.attacks.base import Progress
    from fedprivseg.runtime.engines import Engine

# A stage imports what it needs itself: a run that is only read waits for neither attacks nor figures.


def run(
    scenario: Scenario,
    folder: Path,
    *,
    display: AbstractContextManager[object] | None = None,
    carry_out: Engine | None = None,
) -> Result:
    """Run, assess and report. A run that was reported is read, and nothing is written.

    Args:
        scenario: what to run.
        folder: the run's folder.
        display: entered while the run is under way.
        carry_out: the scenario's engine, if it was begun already.

    Raises:
        QuorumError: too few sites stayed; the run was assessed all the same.
        FedprivsegError: as `simulate`.
    """
    from fedprivseg.study.run import simulate

    paths = RunFolder(folder)
    finished = paths.result.exists()
    try:
        result = simulate(scenario, folder, display=display, carry_out=carry_out)
    except QuorumError as fault:
        assess(folder)
        ended = str(fault).rstrip(".")
        raise QuorumError(f"{ended}. Which rules were kept until then: {paths.compliance}") from None
    if not (finished and paths.report.exists()):
        report(folder)
    return result


def assess(folder: Path) -> tuple[Finding, ...]:
    """Judge which rules a run kept, finished or not. Raises FolderError if `folder` is no run."""
    return judge_and_write(folder)


def attack(folder: Path, budget: Budget, attacks: Sequence[str], sites: Sequence[str], progress: Progress) -> Leakage:
    """Attack what a finished run released, and report what leaks (`attack_run`)."""
    from fedprivseg.study.leakage import attack_run

    found = attack_run(folder, budget, attacks, sites, progress)
    report(folder)
    return found


def report(folder: Path) -> Path:
    """Assess a finished run and write its report; returns the page.

    Raises:
        FolderError: the run has no result, or its folder cannot be written.
    """
    from fedprivseg.study.report.dice_groups import dice_by_group
    from fedprivseg.study.report.report_page import write_report
    from fedprivseg.study.report.site_images import images_of

    read_result(folder)
    require_writable(folder)
    assess(folder)
    return write_report(folder, images_of(folder), dice_by_group(folder))
