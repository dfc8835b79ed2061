"""What the operator does: a kit is made, and a hospital's request is signed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from fedprivseg.core.config import Scenario
from fedprivseg.core.errors import FolderError, RequestError
from fedprivseg.core.files import whole, write_secret, write_text
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.runtime.deployment import app_bundle, certificates, kit_pages, terminator
from fedprivseg.runtime.deployment.kit import Deployment, HospitalKit, Invitation, ServerKit

LOCAL = ("localhost", "127.0.0.1")
"""The server's certificate holds on its own machine, too: there the terminator speaks with the SuperLink."""


def init(
    folder: Path, scenario: Scenario, hosts: Sequence[str], port: int, link_port: int
) -> tuple[ServerKit, dict[str, HospitalKit]]:
    """Make the kit of a study.

    Args:
        folder: a new one.
        scenario: resolved.
        hosts: names and addresses under which hospitals reach the server; they are told the first.
        port: on which the TLS terminator is to listen.
        link_port: on which the SuperLink is to listen, on loopback.

    Returns:
        The operator's folder, and that of each hospital.

    Raises:
        FolderError: the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder} is there and not empty; give a new folder")
    server = ServerKit(folder / "server")
    for path in (server.path, server.logs, server.path / "certificates", folder / "sites"):
        path.mkdir(parents=True, mode=0o700)
    names = tuple(site.name for site in scenario.sites)
    server.write(Deployment(name=scenario.name, hosts=tuple(hosts), port=port, link_port=link_port, sites=names))
    certificates.create_authority(server.authority_key, server.authority, f"fedprivseg {scenario.name}")
    everywhere = tuple(dict.fromkeys([*hosts, *LOCAL]))
    certificates.issue_server(server.authority_key, server.authority, server.tls_key, server.certificate, everywhere)
    write_secret(server.secret, secrets.token_hex(32).encode())
    key = SiteKey.create(server.signing_key)
    app = app_bundle.build(scenario)
    _copy(server.app, app)
    kit_pages.write_operator(server)
    hospitals = {}
    for site in scenario.sites:
        name = site.name
        hospitals[name] = kit = HospitalKit(folder / "sites" / name)
        kit.path.mkdir(mode=0o700)
        kit.write(Invitation(site=name, name=scenario.name, server=f"{hosts[0]}:{port}", server_key=key.public_hex))
        _copy(kit.app, app)
        _copy(kit.authority, server.authority.read_bytes())
        if site.policy:
            write_text(kit.proposed_policy, tomli_w.dumps(site.policy))
        kit_pages.write_hospital(kit)
    terminator.write_configuration(server)
    return server, hospitals


def certify(kit: ServerKit, request: Path) -> Path:
    """Sign a hospital's request; the certificate that goes back to it. It takes effect when the server is started again.

    Raises:
        RequestError: it is no request of a site of this study, or the site has a certificate of another key.
    """
    site, public = certificates.read_request(request)
    sites = kit.deployment.sites
    if site not in sites:
        raise RequestError(f"{request} is of {site[:60]!r}; the sites of this study are: {', '.join(sites)}")
    path = kit.site_certificate(site)
    if path.exists() and certificates.certified_key(path) != certificates.public_pem(public):
        raise RequestError(
            f"{site} has a certificate of another key. If the hospital has lost that key, or somebody else has it, remove "
            f"{path} and certify again"
        )
    certificates.issue_site(kit.authority_key, kit.authority, path, site, public)
    terminator.write_configuration(kit)
    return path


def _copy(path: Path, content: bytes) -> None:
    with whole(path) as draft:
        draft.write_bytes(content)
