"""Where what lies in a deployment: the operator's folder, and the folder of each hospital.

``fedprivseg deploy init DIR`` writes ``DIR/server``, which stays with the operator, and ``DIR/sites/<site>``, which goes to the
hospital. Neither holds a key of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar, final

from pydantic import Field, StringConstraints

from fedprivseg.core.documents import damaged, read_json
from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_text
from fedprivseg.core.model import Frozen
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.core.validation import Name

PIECE = 4_000_000
"""Most bytes of one object on the wire: 4 MB, so that it comes within 180 s over a link of 0.2 Mbit/s."""

Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
Model = TypeVar("Model", bound=Frozen)


class Deployment(Frozen):
    """What the operator decided.

    Attributes:
        name: of the scenario.
        hosts: names and addresses under which hospitals reach the server; the first is the one they are told.
        port: on which the TLS terminator listens.
        link_port: on which the SuperLink listens, on loopback alone.
        sites: the hospitals.
    """

    name: str
    hosts: tuple[Host, ...]
    port: Port
    link_port: Port
    sites: tuple[Name, ...]


class Invitation(Frozen):
    """What a hospital is told.

    Attributes:
        site: its name in the study.
        name: of the scenario.
        server: under which ``host:port`` the server is reached.
        server_key: the public key (hex) with which the server signs; its certificate is another.
    """

    site: Name
    name: str
    server: str
    server_key: str


@final
@dataclass(frozen=True)
class ServerKit:
    """The operator's folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def deployment(self) -> Deployment:
        """What the operator decided.

        Raises:
            RequestError: this is no such folder.
        """
        return _read(self.path / "deployment.json", Deployment)

    def write(self, deployment: Deployment) -> None:
        """Note what the operator decided."""
        write_text(self.path / "deployment.json", deployment.model_dump_json(indent=1))

    @property
    def app(self) -> Path:
        """The app of the study."""
        return self.path / "app.fab"

    @property
    def authority_key(self) -> Path:
        """The private key of the consortium's authority."""
        return self.path / "authority.key"

    @property
    def authority(self) -> Path:
        """The certificate of the consortium's authority."""
        return self.path / "authority.pem"

    @property
    def tls_key(self) -> Path:
        """The private key of the server's certificate."""
        return self.path / "server.key"

    @property
    def certificate(self) -> Path:
        """The server's certificate."""
        return self.path / "server.pem"

    @property
    def signing_key(self) -> Path:
        """The private key with which the server signs its ledger and announcements."""
        return self.path / "signing.key"

    @property
    def secret(self) -> Path:
        """What only the operator's processes know: without it nobody takes the server's task from the SuperLink."""
        return self.path / "task.secret"

    @property
    def terminator(self) -> Path:
        """The TLS terminator's configuration."""
        return self.path / "nginx.conf"

    @property
    def database(self) -> Path:
        """The SuperLink's database; the bytes of messages lie in it."""
        return self.path / "superlink.db"

    @property
    def flower(self) -> Path:
        """Flower's own folder of this party."""
        return self.path / "flower"

    @property
    def logs(self) -> Path:
        """A folder: what the processes print."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """The folder of the run, as far as the server sees it."""
        return self.path / "run"

    def site_certificate(self, site: str) -> Path:
        """The certificate of a hospital, once it was issued."""
        return self.path / "certificates" / f"{site}.pem"

    @property
    def certified(self) -> dict[str, Path]:
        """The certificates of the hospitals that have one, by site."""
        found = {site: self.site_certificate(site) for site in self.deployment.sites}
        return {site: path for site, path in found.items() if path.exists()}


@final
@dataclass(frozen=True)
class HospitalKit:
    """The folder of one hospital.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def invitation(self) -> Invitation:
        """What the hospital was told.

        Raises:
            RequestError: this is no such folder.
        """
        return _read(self.path / "invitation.json", Invitation)

    def write(self, invitation: Invitation) -> None:
        """Note what the hospital is told."""
        write_text(self.path / "invitation.json", invitation.model_dump_json(indent=1))

    @property
    def app(self) -> Path:
        """The app of the study, to be read before it is approved."""
        return self.path / "app.fab"

    @property
    def authority(self) -> Path:
        """The certificate of the consortium's authority."""
        return self.path / "authority.pem"

    @property
    def key(self) -> Path:
        """The hospital's private key for the wire; made there."""
        return self.path / "node.key"

    @property
    def request(self) -> Path:
        """The certificate request, which goes to the operator."""
        return self.path / f"{self.invitation.site}.csr"

    @property
    def certificate(self) -> Path:
        """The hospital's certificate, which comes back."""
        return self.path / f"{self.invitation.site}.pem"

    @property
    def approved(self) -> Path:
        """Which apps the data manager has approved."""
        return self.path / "approved.json"

    @property
    def flower(self) -> Path:
        """Flower's own folder of this party."""
        return self.path / "flower"

    @property
    def number(self) -> Path:
        """The number under which the SuperLink knows the hospital's node, once it does."""
        return self.path / "node-id"

    @property
    def proposed_policy(self) -> Path:
        """The policy that the operator has on file of the hospital, if any; the hospital reads, changes and adopts it."""
        return self.path / "proposed-policy.toml"

    @property
    def home(self) -> SiteFolder:
        """The site's own folder: policy, vault, ledger."""
        return SiteFolder(self.path / "site" / self.invitation.site)


def _read(path: Path, model: type[Model]) -> Model:
    if not path.exists():
        raise RequestError(f"{path.parent} holds no {path.name}; `fedprivseg deploy init` writes such a folder")
    try:
        return model.model_validate(read_json(path))
    except ValueError:
        raise damaged(path, "was changed", "Put back the one that came with the kit") from None
