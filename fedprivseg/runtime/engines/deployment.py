"""A consortium on this machine: SuperLink, TLS terminator and a SuperNode a site as processes of their own, on loopback.

What runs is what a deployment between hospitals runs, with a kit that is made for this run and gone after it. The server's half
is carried out by this process.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedprivseg.core.config import Scenario
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.runtime.deployment import hospital_side, operator_side
from fedprivseg.runtime.deployment.app_bundle import read
from fedprivseg.runtime.deployment.approval import approve
from fedprivseg.runtime.deployment.kit import HospitalKit, ServerKit
from fedprivseg.runtime.deployment.processes import Child, environment, free_ports, stop_all
from fedprivseg.runtime.deployment.service import service
from fedprivseg.runtime.deployment.submission import submit

LOOPBACK = "127.0.0.1"


def run(folder: Path, scenario: Scenario, site_app: ClientApp, server_app: ServerApp) -> None:
    """Run the scenario prepared in `folder` to its end; every site runs `site_app`, which its module names ``app``.

    Raises:
        RequestError: nginx is not installed.
        RunError: a process does not start, or the SuperLink fails.
    """
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedprivseg-")))
        port, link_port = free_ports(2)
        kit, hospitals = operator_side.init(place / "kit", scenario, (LOOPBACK,), port, link_port)
        for each in hospitals.values():
            join(kit, each)
        stack.enter_context(service(kit, LOOPBACK))
        nodes: list[Child] = []
        stack.callback(stop_all, nodes)
        for site, each in hospitals.items():
            nodes.append(start_node(each, RunFolder(folder).site(site).configuration, f"{site_app.__module__}:app"))
        submit(kit, folder, server_app)


def join(kit: ServerKit, hospital: HospitalKit) -> None:
    """Play a hospital's part: key, certificate, approval."""
    certificate = operator_side.certify(kit, hospital_side.keygen(hospital))
    hospital.certificate.write_bytes(certificate.read_bytes())
    approve(hospital.approved, hospital.app, read(hospital.app.read_bytes()).sha256, "engine")


def start_node(hospital: HospitalKit, station: Path, program: str) -> Child:
    """Begin a hospital's node."""
    words = [sys.executable, "-m", "fedprivseg.runtime.deployment.node", str(hospital.path), str(station), program]
    return Child(f"the node of {hospital.path.name}", words, hospital.path / "node.log", environment(hospital.flower))
