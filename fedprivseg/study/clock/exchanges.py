"""What the virtual clock goes by: the orders of a run with their bytes and seconds, as the server recorded them.

The receipts in the server's ledger say for each order how many bytes went to the site and came back, how many seconds the site
took by its own clock, and in which stage of the run. ``accounts.json`` says how long each stage took, and how much of that the
server waited: the rest is the server's own work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedprivseg.core.accounts import Accounts
from fedprivseg.core.errors import FolderError
from fedprivseg.core.expected import DESCRIBE
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.governance.ledger import ledger
from fedprivseg.governance.ledger.line import Line
from fedprivseg.governance.ledger.receipts import CENTISECONDS, SENT, STAGE

ROLL_CALL, NO_STAGE = "roll call", "between stages"
"""What the orders are called that no stage of the method gives."""


@dataclass(frozen=True)
class Errand:
    """One order to one site.

    Attributes:
        down: bytes that went to the site with it.
        up: bytes that came back.
        seconds: that the site took, by its own clock.
    """

    down: int = 0
    up: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Exchange:
    """One order to several sites, and the server's own work after their answers.

    Attributes:
        stage: of the run.
        action: what was ordered; empty where the server works alone.
        number: of the order.
        attempt: how many withdrawals came before it: after each all is made again.
        errands: by site.
        server_s: the server's seconds after it.
    """

    stage: str
    action: str
    number: int
    attempt: int
    errands: Mapping[str, Errand]
    server_s: float = 0.0


def recorded(run: Path) -> tuple[Exchange, ...]:
    """The exchanges of a run, in order. One that was repeated after an interruption counts once.

    Raises:
        FolderError: there is no run, or it was made by a release that recorded no seconds.
        LedgerError: the server's ledger cannot be read.
    """
    server = RunFolder(run).server
    if not server.ledger.exists():
        raise FolderError(f"{run} holds no run of a server (no server/ledger.jsonl); give the folder of a run")
    found = _exchanges(ledger.read(server.ledger))
    if not any(errand.seconds for each in found for errand in each.errands.values()):
        raise FolderError(
            f"{run}: its server recorded no seconds of any order; earlier releases did not. Run the scenario again into "
            "another folder"
        )
    accounts = Accounts.kept(server.path)
    own = {stage: max(0.0, seconds - accounts.waited.get(stage, 0.0)) for stage, seconds in accounts.stages.items()}
    return _in_stages(found, own)


def _exchanges(lines: Iterable[Line]) -> list[Exchange]:
    attempt = 0
    errands: dict[tuple[int, str, int], dict[str, Errand]] = {}
    stages: dict[tuple[int, str, int], str] = {}
    for line in lines:
        attempt += line.event == "withdrawal"
        if line.event != "receipt":
            continue
        facts = line.facts
        key = attempt, str(facts["action"]), int(str(facts["number"]))
        down, up, hundredths = (int(str(facts.get(name, 0))) for name in (SENT, "bytes", CENTISECONDS))
        own, site = errands.setdefault(key, {}), str(facts["site"])
        before = own.get(site, Errand())
        own[site] = Errand(max(down, before.down), max(up, before.up), max(hundredths / 100, before.seconds))
        stages.setdefault(key, ROLL_CALL if key[1] == DESCRIBE else str(facts.get(STAGE, NO_STAGE)))
    return [Exchange(stages[key], key[1], key[2], key[0], own) for key, own in errands.items()]


def _in_stages(found: list[Exchange], own: Mapping[str, float]) -> tuple[Exchange, ...]:
    """The exchanges stage by stage, with the server's own seconds: dealt evenly over those of a stage, alone where it has none.

    own: stage -> the server's seconds, in the order of the stages.
    """
    steps: list[Exchange] = []
    for stage in (ROLL_CALL, *own, NO_STAGE):
        inside = [each for each in found if each.stage == stage]
        seconds = own.get(stage, 0.0)
        if not inside and seconds:
            steps.append(Exchange(stage, "", 0, 0, {}, seconds))
        steps += [
            Exchange(each.stage, each.action, each.number, each.attempt, each.errands, seconds / len(inside))
            for each in inside
        ]
    return tuple(steps)
