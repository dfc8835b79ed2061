"""The pages of a kit: what the operator and each hospital have to do, and the files with which their systems start it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from string import Template

from fedprivseg.core.files import write_text
from fedprivseg.runtime.deployment.kit import HospitalKit, ServerKit

_PAGES = Path(__file__).with_name("pages")


def write_operator(kit: ServerKit) -> None:
    """Write the operator's page, its unit for systemd and its container file."""
    deployment = kit.deployment
    words = {
        "name": deployment.name,
        "version": version("fedprivseg"),
        "folder": str(kit.path.resolve()),
        "port": str(deployment.port),
        "link_port": str(deployment.link_port),
        "program": str(Path(sys.executable).with_name("fedprivseg")),
    }
    for name, place in {
        "operator.md": "README.md",
        "fedprivseg-server.service": "fedprivseg-server.service",
        "server.Containerfile": "server.Containerfile",
    }.items():
        write_text(kit.path / place, _filled(name, words))


def write_hospital(kit: HospitalKit) -> None:
    """Write a hospital's page, its unit for systemd and its container file."""
    told = kit.invitation
    words = {"name": told.name, "site": told.site, "server": told.server, "version": version("fedprivseg")}
    for name, place in {
        "hospital.md": "README.md",
        "fedprivseg-site.service": "fedprivseg-site.service",
        "site.Containerfile": "site.Containerfile",
    }.items():
        write_text(kit.path / place, _filled(name, words))


def _filled(name: str, words: dict[str, str]) -> str:
    return Template((_PAGES / name).read_text(encoding="utf-8")).substitute(words)
