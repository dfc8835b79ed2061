"""How a party of a deployment stands, in sentences: what is there, what is missing, who is connected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from fedprivseg.core.errors import RequestError, RunError
from fedprivseg.core.progress import read_progress
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.runtime.deployment import app_bundle
from fedprivseg.runtime.deployment.approval import approved
from fedprivseg.runtime.deployment.kit import HospitalKit, ServerKit


@final
@dataclass(frozen=True)
class Standing:
    """One thing and how it stands.

    Attributes:
        what: the thing.
        state: how it stands.
        well: whether it is as it should be.
    """

    what: str
    state: str
    well: bool


def standing(folder: Path) -> list[Standing]:
    """How the party whose kit lies in `folder` stands.

    Raises:
        RequestError: it is no kit.
    """
    if (folder / "deployment.json").exists():
        return _server(ServerKit(folder))
    if (folder / "invitation.json").exists():
        return _hospital(HospitalKit(folder))
    raise RequestError(f"{folder} is no kit; give DIR/server or DIR/sites/SITE of `fedprivseg deploy init`")


def _server(kit: ServerKit) -> list[Standing]:
    from fedprivseg.runtime.deployment.superlink import Link

    certified, seen, runs = kit.certified, {}, []
    found = []
    with Link(kit) as link:
        try:
            seen = {node.name: node.status for node in link.nodes()}
            runs = link.runs()
            found.append(Standing("SuperLink", "answers", True))
        except RunError as fault:
            found.append(Standing("SuperLink", str(fault), False))
    for site in kit.deployment.sites:
        state = seen.get(site, "registered when the server starts") if site in certified else "has no certificate yet"
        found.append(Standing(site, state, state == "online"))
    if runs:
        found.append(Standing("run", f"{runs[0].status.status} {runs[0].status.sub_status}".strip(), True))
    step = read_progress(RunFolder(kit.run).server.progress)
    if step is not None:
        found.append(Standing("stage", f"{step.stage} {step.done} of {step.total}", True))
    if RunFolder(kit.run).result.exists():
        found.append(Standing("result", str(RunFolder(kit.run).result), True))
    return found


def _hospital(kit: HospitalKit) -> list[Standing]:
    app, home = app_bundle.read(kit.app.read_bytes()), kit.home
    well = app.sha256 in approved(kit.approved)
    things = {
        "key": (kit.key, "fedprivseg deploy keygen"),
        "certificate": (kit.certificate, f"send {kit.request.name} to the operator"),
        "policy": (home.policy, f"adopt {kit.proposed_policy.name}"),
        "site": (home.configuration, "fedprivseg deploy site --data"),
    }
    found = [
        Standing(what, "there" if path.exists() else f"missing: {remedy}", path.exists())
        for what, (path, remedy) in things.items()
    ]
    found.insert(2, Standing("app", f"{app.sha256} {'approved' if well else 'not approved'}", well))
    if fault := app.fault():
        found.append(Standing("code", fault, False))
    if home.ledger.exists():
        found.append(Standing("ledger", f"{len(home.ledger.read_bytes().splitlines())} lines", True))
    return found
