"""Where what lies in a run's folder: every path of a run, of its server and of its sites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.results import read_scenario

KEY = "key.pem"
"""The private key of a party: in the vault of a site, in the folder of the server."""
REGISTER, AGREEMENT = "consent.csv", "agreement.json"
"""Files in a site's folder."""


@final
@dataclass(frozen=True)
class SiteFolder:
    """The folder of one site; its name is the site's.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def name(self) -> str:
        """The site's name."""
        return self.path.name

    @property
    def configuration(self) -> Path:
        """The site's description, its data and whom it deals with."""
        return self.path / "station.json"

    @property
    def policy(self) -> Path:
        """What may leave the site."""
        return self.path / "policy.toml"

    @property
    def agreement(self) -> Path:
        """The data-use agreement that the site has on file."""
        return self.path / AGREEMENT

    @property
    def register(self) -> Path:
        """The register of consent."""
        return self.path / REGISTER

    @property
    def ledger(self) -> Path:
        """The site's ledger."""
        return self.path / "ledger.jsonl"

    @property
    def vault(self) -> Path:
        """Keys, encoders and state of the site."""
        return self.path / "vault"

    @property
    def key(self) -> Path:
        """The site's private key."""
        return self.vault / KEY


@final
@dataclass(frozen=True)
class ServerFolder:
    """The folder of a run's server.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.path / KEY

    @property
    def ledger(self) -> Path:
        """The server's ledger."""
        return self.path / "ledger.jsonl"

    @property
    def codes(self) -> Path:
        """Verified shards, a folder for each site."""
        return self.path / "codes"

    @property
    def metrics(self) -> Path:
        """What each site measured."""
        return self.path / "metrics"


@final
@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def server(self) -> ServerFolder:
        """The server's folder."""
        return ServerFolder(self.path / "server")

    def site(self, name: str) -> SiteFolder:
        """The folder of the site `name`, whether it is there or not."""
        return SiteFolder(self.path / "sites" / name)


def station_folder(run: Path, site: str) -> Path:
    """Where a simulated site's own folder lies in a run."""
    return RunFolder(run).site(site).path


def home_of(run: Path, site: str) -> Path:
    """The folder of the hospital `site` in a run; it may have been lost. Raises FolderError if there is no run, RequestError
    that names the sites if it is none of them."""
    scenario = read_scenario(run)
    names = sorted(each.name for each in scenario.sites)
    if site not in names:
        raise RequestError(f"unknown site {site!r}; the sites of this run are: {', '.join(names)}")
    return station_folder(run, site)
