"""Where what lies in a run's folder: every path of a run, of its server and of its sites.

The names of files are an interface: run folders of earlier releases are read by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from fedprivseg.core.errors import RequestError
from fedprivseg.core.results import read_scenario

KEY = "key.pem"
"""The private key of a party: in the vault of a site, in the folder of the server."""


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
    def scenario(self) -> Path:
        """What the site takes part in, as it first came; it answers no order under another."""
        return self.path / "scenario.json"

    @property
    def policy(self) -> Path:
        """What may leave the site, for what and under which protections."""
        return self.path / "policy.toml"

    @property
    def agreement(self) -> Path:
        """The data-use agreement that the site has on file."""
        return self.path / "agreement.json"

    @property
    def register(self) -> Path:
        """The register of consent."""
        return self.path / "consent.csv"

    @property
    def response_plan(self) -> Path:
        """What the site does when data has leaked."""
        return self.path / "response.toml"

    @property
    def staff(self) -> Path:
        """Who works at the site, in which role."""
        return self.path / "staff.toml"

    @property
    def records(self) -> Path:
        """The index of what can be asked for."""
        return self.path / "records.jsonl"

    @property
    def accounts(self) -> Path:
        """The accounts of patients."""
        return self.path / "accounts.jsonl"

    @property
    def cedar(self) -> Path:
        """A folder: the site's own rules of access."""
        return self.path / "cedar"

    @property
    def ledger(self) -> Path:
        """The site's ledger."""
        return self.path / "ledger.jsonl"

    @property
    def enrolment(self) -> Path:
        """Who was enrolled, of which level, on which day."""
        return self.path / "intake.json"

    @property
    def cohort(self) -> Path:
        """Who takes part, and on which side of the split."""
        return self.path / "cohort.json"

    @property
    def predictions(self) -> Path:
        """A folder: masks of the test subjects on the grid of their images."""
        return self.path / "predictions"

    @property
    def progress(self) -> Path:
        """How far the site is."""
        return self.path / "progress.json"

    @property
    def vault(self) -> Path:
        """A folder: keys, encoders and state of the site."""
        return self.path / "vault"

    @property
    def key(self) -> Path:
        """The site's private key."""
        return self.vault / KEY

    @property
    def sealing_key(self) -> Path:
        """The key with which the vault is encrypted at rest; there is none where the site's policy does not ask for it."""
        return self.path / "sealing.key"


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
    def encryption_key(self) -> Path:
        """The private key to which sites encrypt."""
        return self.path / "encryption.pem"

    @property
    def ledger(self) -> Path:
        """The server's ledger."""
        return self.path / "ledger.jsonl"

    @property
    def identities(self) -> Path:
        """The public key of each site, noted when it first spoke."""
        return self.path / "identities.json"

    @property
    def accounts(self) -> Path:
        """What each site cost and how it fared."""
        return self.path / "accounts.json"

    @property
    def progress(self) -> Path:
        """How far the server is."""
        return self.path / "progress.json"

    @property
    def seed(self) -> Path:
        """The root of the server's own random draws in a deployment; a simulation's is the scenario's."""
        return self.path / "seed"

    @property
    def start(self) -> Path:
        """The public start of the run's networks, where they have one."""
        return self.path / "start.safetensors"

    @property
    def codes(self) -> Path:
        """Verified shards, a folder for each site."""
        return self.path / "codes"

    def shards(self, site: str) -> list[Path]:
        """The files of what the server keeps of a site's codes, images or weights, sorted."""
        return sorted((self.codes / site).rglob("*.safetensors"))

    def metrics(self, site: str) -> Path:
        """What the site measured."""
        return self.path / "metrics" / f"{site}.safetensors"


@final
@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def scenario(self) -> Path:
        """What is run."""
        return self.path / "scenario.json"

    @property
    def method_card(self) -> Path:
        """What the run's method is, for who knows no method."""
        return self.path / "method.json"

    @property
    def run_id(self) -> Path:
        """The id that the run's signatures carry."""
        return self.path / "run-id"

    @property
    def result(self) -> Path:
        """What was measured."""
        return self.path / "result.json"

    @property
    def metrics(self) -> Path:
        """The same as a table."""
        return self.path / "metrics.csv"

    @property
    def compliance(self) -> Path:
        """Which clauses were kept."""
        return self.path / "compliance.json"

    @property
    def attacks(self) -> Path:
        """What attacks found."""
        return self.path / "attacks.json"

    @property
    def attack_arrays(self) -> Path:
        """What attacks reconstructed."""
        return self.path / "attacks.safetensors"

    @property
    def withdrawals(self) -> Path:
        """Withdrawals that were carried out."""
        return self.path / "withdrawals.json"

    @property
    def faults(self) -> Path:
        """A folder: which of the faults that the scenario simulates have happened."""
        return self.path / "faults"

    @property
    def report(self) -> Path:
        """The run as a page."""
        return self.path / "report.html"

    @property
    def server(self) -> ServerFolder:
        """The server's folder."""
        return ServerFolder(self.path / "server")

    def site(self, name: str) -> SiteFolder:
        """The folder of the site `name`, whether it is there or not."""
        return SiteFolder(self.path / "sites" / name)

    @property
    def sites(self) -> list[SiteFolder]:
        """The folders of sites that are there, sorted by name."""
        return [SiteFolder(path) for path in sorted((self.path / "sites").glob("*")) if path.is_dir()]

    def site_named(self, name: str) -> SiteFolder:
        """The folder of a site of the run's scenario; it may have been lost.

        Raises:
            FolderError: there is no run.
            RequestError: the run has no such site; it names those that it has.
        """
        names = sorted(site.name for site in read_scenario(self.path).sites)
        if name not in names:
            raise RequestError(f"unknown site {name!r}; the sites of this run are: {', '.join(names)}")
        return self.site(name)
