"""Every fault that a scenario can simulate, and what is to become of a run that has it: tests hold it, a command prints it.

The run is three phantom sites that average weights for two rounds, of which two are enough; or, for shards, that send codes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from conftest import BRIEF, ROOT, tiny_settings

SITE = "centre2"
FEDAVG = [
    "method.name=fedavg",
    'method.variant=""',
    "method.parameters={rounds=2, local_steps=1, curve_points=0, test_views=1}",
    "quorum=2",
    "stages.all={deadline_s=60, resend_s=0.2}",
    "report.images=false",
]
CODED = [*BRIEF, "report.images=false", "quorum=2", "stages.all={deadline_s=60, resend_s=0.2}"]
FOR_GOOD = "times=1000"
AGREED = [
    "study.today=2026-03-01",
    "study.agreement={start=2026-01-01, end=2026-12-31}",
    'policy.restrict.all={profile="open-research", agreement="required"}',
]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        what: what goes wrong, for people.
        fault: as in a scenario, after ``party``, which is the second site unless it says another.
        status: with which the command ends.
        left: what stands in the result of each site that left; empty if all go on.
        says: what the command says if it does not finish.
        same: whether the numbers are those of a run without faults.
        again: the same for the same command, given a second time; None where the first finished.
        settings: of the run.
        base: of all runs that are compared with it.
        notes: what a note on a site says in the result.
    """

    what: str
    fault: str
    status: int = 0
    left: dict[str, str] = field(default_factory=dict)
    says: str = ""
    same: bool = True
    again: bool | None = None
    settings: tuple[str, ...] = ()
    base: tuple[str, ...] = tuple(FEDAVG)
    notes: str = ""


def lost(why: str, site: str = SITE) -> dict:
    return {"left": {site: why}, "same": False}


TRAIN = 'action="train", number=1'
CASES = {
    "a site dies before it trains": Case("killed, once", f'kind="kill", {TRAIN}'),
    "a site dies after it trained": Case("killed once, its answer is lost", f'kind="kill", when="after", {TRAIN}'),
    "a site dies in the roll call": Case("killed, once", 'kind="kill", action="describe"'),
    "a site stays dead": Case(
        "killed, whenever it is asked",
        f'kind="kill", {TRAIN}, {FOR_GOOD}',
        **lost("died in 'train' (Flower error code 8)"),
    ),
    "a site stays dead, and all are needed": Case(
        "killed three times, quorum 3",
        f'kind="kill", {TRAIN}, times=3',
        status=3,
        says="2 of 3 sites remain, the quorum is 3",
        again=True,
        settings=("quorum=3",),
    ),
    "a site comes back for the next round": Case(
        "killed three times, rejoin next-round",
        f'kind="kill", {TRAIN}, times=3',
        settings=("rejoin=next-round",),
        same=False,
    ),
    "Flower tells of an error": Case("error 5 instead of an answer, once", f'kind="error", code=5, {TRAIN}'),
    "an order is lost": Case("dropped, once", f'kind="drop", {TRAIN}'),
    "an answer is lost": Case("dropped, once", f'kind="drop", when="after", {TRAIN}'),
    "a shard is lost": Case("dropped, once", 'kind="drop", when="after", action="send_mask_codes"', base=tuple(CODED)),
    "a site is silent": Case(
        "dropped, always",
        f'kind="drop", {TRAIN}, {FOR_GOOD}',
        settings=("stages.train={deadline_s=1, resend_s=0.2}",),
        **lost("gave no answer to 'train' within 1 s"),
    ),
    "an answer is late": Case("a second late", f'kind="delay", seconds=1, {TRAIN}'),
    "an answer is too late": Case(
        "late beyond the deadline",
        f'kind="delay", seconds=30, {TRAIN}, {FOR_GOOD}',
        settings=("stages.train={deadline_s=1, resend_s=0.2}",),
        **lost("gave no answer to 'train' within 1 s"),
    ),
    "a straggler is left behind": Case(
        "late, and the scenario waits no longer than a moment after the quorum",
        f'kind="delay", seconds=30, {TRAIN}, {FOR_GOOD}',
        settings=("stages.train={stragglers_s=0.1, quorum=1}",),
        **lost("was left behind in 'train': no answer 0.1 s after the quorum of 1 had one"),
    ),
    "an answer comes twice": Case("duplicated", f'kind="duplicate", {TRAIN}'),
    "every answer comes twice": Case(
        "duplicated, each of its answers", f'kind="duplicate", action="train", {FOR_GOOD}'
    ),
    "a shard comes twice": Case("duplicated", 'kind="duplicate", action="send_image_codes"', base=tuple(CODED)),
    "answers come in another order": Case("the later one first", f'kind="reorder", {TRAIN}'),
    "an answer is cut short": Case("half of its bytes, once", f'kind="truncate", {TRAIN}'),
    "an answer is changed": Case("one bit, once", f'kind="corrupt", {TRAIN}'),
    "a shard is changed": Case("one bit, once", 'kind="corrupt", action="send_image_codes"', base=tuple(CODED)),
    "every answer is changed": Case(
        "one bit, always",
        f'kind="corrupt", {TRAIN}, {FOR_GOOD}',
        **lost("refused at the intake in 'train': bad signature"),
    ),
    "an old answer comes again": Case("the one before, once", f'kind="replay", {TRAIN}'),
    "an old answer comes again and again": Case(
        "the one before, always",
        f'kind="replay", {TRAIN}, {FOR_GOOD}',
        **lost("refused at the intake in 'train': bad sig"),
    ),
    "a node poses as another site": Case("once, in training", f'kind="impersonation", {TRAIN}'),
    "a node keeps posing as another site": Case(
        "always, in training",
        f'kind="impersonation", {TRAIN}, {FOR_GOOD}',
        **lost("refused at the intake in 'train': its reply names another site"),
    ),
    "a node poses as another site from the start": Case(
        "in the roll call, quorum 1",
        f'kind="impersonation", action="describe", {FOR_GOOD}',
        settings=("quorum=1",),
        left={"centre1": "2 nodes present themselves as this site", SITE: "did not present itself"},
        same=False,
    ),
    "NaN": Case("signed, past its gate", f'kind="nan", {TRAIN}', **lost("refused at the intake in 'train'")),
    "oversize": Case("64 MB, signed", f'kind="oversize", {TRAIN}', **lost("refused at the intake in 'train'")),
    "wrong shape": Case("signed, past its gate", f'kind="shape", {TRAIN}', **lost("refused at the intake in 'train'")),
    "NaN in a shard": Case(
        "signed, past its gate",
        'kind="nan", action="send_image_codes"',
        base=tuple(CODED),
        **lost("refused at the intake in 'send_image_codes'"),
    ),
    "a poisoned update": Case(
        "well-formed weights, far away; every honest site refuses the mean that they make",
        f'kind="poison", {TRAIN}',
        status=3,
        says="(model.jump)",
        same=False,
    ),
    "a poisoned update, and a median": Case(
        "the same, fedmedian", f'kind="poison", {TRAIN}', same=False, settings=("method.name=fedmedian",)
    ),
    "poisoned codes": Case(
        "mask codes ten times as far from their mean",
        f'kind="poison", action="send_mask_codes", {FOR_GOOD}',
        same=False,
        base=tuple(CODED),
        notes="outlying: its mask codes spread 4",
    ),
    "poisoned codes, left out by rule": Case(
        'the same, outlying = "left-out"',
        f'kind="poison", action="send_mask_codes", {FOR_GOOD}',
        settings=('method.parameters.outlying="left-out"',),
        base=tuple(CODED),
        **lost("left out: outlying: its mask codes spread 4"),
    ),
    "a site's disk is full": Case("in training", f'kind="full-disk", {TRAIN}', **lost("failed in 'train': ")),
    "a site's clock jumps": Case(
        "a year ahead, where an agreement ends before",
        f'kind="clock", seconds=3.2e7, {TRAIN}',
        base=(*FEDAVG, *AGREED),
        **lost("blocked by site policy in 'train' (agreement.term)"),
    ),
    "the server's disk is full": Case(
        "in training", f'kind="full-disk", party="server", {TRAIN}', status=2, says="no room left", again=True
    ),
    "the server's clock jumps ahead": Case("a day", f'kind="clock", party="server", seconds=86400, {TRAIN}'),
    "the server's clock jumps back": Case("a day", f'kind="clock", party="server", seconds=-86400, {TRAIN}'),
    **{
        f"the server dies {when} {action}": Case(
            "SIGKILL",
            f'kind="kill", party="server", action="{action}", when="{when}"',
            status=-signal.SIGKILL,
            again=True,
        )
        for action in ("describe", "train", "measure")
        for when in ("before", "after")
    },
    "the server dies after a shard": Case(
        "SIGKILL",
        'kind="kill", party="server", action="send_mask_codes", when="after"',
        status=-signal.SIGKILL,
        again=True,
        base=tuple(CODED),
    ),
}


class Killed(BaseException):
    """In the place of a SIGKILL, where a test looks at many and cannot begin a process for each."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run: exit status, what the command said, the sites that left and why, all notes, and the numbers."""

    status: int
    said: str
    left: dict[str, str]
    notes: tuple[str, ...]
    numbers: dict[str, bytes]


def settings_of(case: Case) -> list[str]:
    party = "" if "party=" in case.fault else f', party="{SITE}"'
    return [*case.base, *case.settings, f"faults=[{{{case.fault}{party}}}]"]


def carry_out(folder: Path, phantom: Path, settings: list[str], *, apart: bool) -> Outcome:
    """Run it into `folder`; apart: in a process of its own, which may be killed."""
    chosen = [*tiny_settings(phantom), *settings]
    quickstart = ROOT / "simulations" / "quickstart.toml"
    if apart:
        words = [sys.executable, "-m", "fedprivseg.cli", "run", str(quickstart), "--out", str(folder), "--json"]
        words += [word for one in chosen for word in ("--set", one)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ})
        return _outcome(folder, done.returncode, done.stderr)
    from fedprivseg.core.errors import FedprivsegError
    from fedprivseg.study.run import load_scenario, simulate

    status, said = 0, ""
    try:
        simulate(load_scenario(quickstart, chosen), folder)
    except FedprivsegError as fault:
        status, said = fault.status, str(fault)
    except Killed:
        status = -signal.SIGKILL
    return _outcome(folder, status, said)


def _outcome(folder: Path, status: int, said: str) -> Outcome:
    left, notes = {}, ()
    with contextlib.suppress(FileNotFoundError):
        result = json.loads((folder / "result.json").read_text())
        left = {name: site["status"] for name, site in result["sites"].items() if site["status"] != "ok"}
        remarks = [f"{name}: {note}" for name, site in result["sites"].items() for note in site["notes"]]
        notes = (*result["notes"], *remarks)
    arrays = [
        *folder.glob("server/*.safetensors"),
        *folder.glob("server/metrics/*"),
        *folder.glob("server/codes/*/*/*.safetensors"),
    ]
    names = [path for path in (folder / "metrics.csv", *sorted(arrays)) if path.exists()]
    return Outcome(status, said, left, notes, {str(path.relative_to(folder)): path.read_bytes() for path in names})
