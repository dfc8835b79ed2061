"""What a hospital does: a key of its own, and a folder for its site."""

from __future__ import annotations

import secrets
from pathlib import Path

from fedprivseg.core.documents import content_of
from fedprivseg.core.errors import DataError, RequestError
from fedprivseg.core.files import write_durably, write_text
from fedprivseg.governance.sitefolder.configuration import SiteConfiguration
from fedprivseg.runtime.deployment import app_bundle, certificates
from fedprivseg.runtime.deployment.approval import approved
from fedprivseg.runtime.deployment.kit import HospitalKit

SEED_BITS = 256
"""Length of a site's secret seed: its networks' beginnings and its noise follow from it, and can be guessed by nobody."""


def keygen(kit: HospitalKit) -> Path:
    """Make the hospital's key; the certificate request that goes to the operator.

    Raises:
        RequestError: there is a key already.
    """
    key = certificates.create_key(kit.key)
    kit.home.path.mkdir(parents=True, mode=0o700, exist_ok=True)  # where the data manager puts the policy
    write_text(kit.request, certificates.request(key, kit.invitation.site).decode())
    return kit.request


def prepare(kit: HospitalKit, release: Path | None) -> Path:
    """Have the site's folder ready; the path of the site's configuration.

    Args:
        kit: the hospital's folder.
        release: the folder of the hospital's images; None if the site was prepared before.

    Raises:
        RequestError: the app is not approved, or the hospital has adopted no policy.
        DataError: there are no images.
    """
    home, app = kit.home, app_bundle.read(content_of(kit.app))
    if app.sha256 not in approved(kit.approved):
        raise RequestError(
            f"the app {app.sha256} is not approved here: read what it says with `fedprivseg deploy approve {kit.path}`, and "
            "approve it by its hash"
        )
    if not home.policy.exists():
        raise RequestError(
            f"{home.policy} is missing, and without a policy nothing leaves a site: adopt "
            f"{kit.proposed_policy.name}, or write one (`fedprivseg policy --help`)"
        )
    if home.configuration.exists():
        return home.configuration
    if release is None or not release.is_dir():
        raise DataError(f"--data is {release}; give the folder of the hospital's images")
    scenario = app.scenario
    (own,) = (site for site in scenario.sites if site.name == home.name)
    content = SiteConfiguration(
        folder=home.path,
        site=own.model_copy(update={"policy": {}, "cedar": {}}),
        data=scenario.data,
        release=release.resolve(),
        cache=(kit.path / "cache").resolve(),
        server_key=kit.invitation.server_key,
        seed=secrets.randbits(SEED_BITS),
    )
    write_durably(home.configuration, [content.model_dump_json(indent=1).encode()])
    return home.configuration
