"""A consortium of three sites, whose server runs: what tests of the port and of the nodes work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Consortium:
    folder: Path
    server: object
    hospitals: dict

    @property
    def port(self) -> int:
        return self.server.deployment.port


@pytest.fixture(scope="session")
def kits(tmp_path_factory, tiny_scenario):
    """The kits, with certificates and approvals; nothing runs."""
    from fedprivseg.runtime.deployment.operator_side import init
    from fedprivseg.runtime.deployment.processes import free_ports
    from fedprivseg.runtime.engines.deployment import LOOPBACK, join
    from fedprivseg.study.deployed import deployable

    folder = tmp_path_factory.mktemp("consortium")
    server, hospitals = init(folder / "kit", deployable(tiny_scenario), (LOOPBACK,), *free_ports(2))
    for each in hospitals.values():
        join(server, each)
    return Consortium(folder, server, hospitals)


@pytest.fixture(scope="session")
def consortium(nginx, kits):
    """The same, and its server runs."""
    from fedprivseg.runtime.deployment.service import service
    from fedprivseg.runtime.engines.deployment import LOOPBACK

    with service(kits.server, LOOPBACK):
        yield kits
