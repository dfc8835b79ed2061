"""Where a site program finds itself: its public description, its data and its own folder.

A deployed site names its station file in the node configuration (``station = "/path/station.json"``). A simulated site has
only Flower's ``partition-id``; the simulation puts the stations' folder into the environment, which Ray's workers inherit.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.documents import content_of, damaged
from fedprivseg.core.model import Frozen

if TYPE_CHECKING:  # who starts a simulation needs no Flower for the variable's name
    from flwr.app import Context

STATION = "station.json"
"""The file in a site's folder that says where its program finds itself."""

STATIONS = "FEDPRIVSEG_STATIONS"
"""Environment variable: the folder that holds ``<site>/station.json`` of every simulated site."""


class ConfigurationFile(Frozen):
    """A site's own settings, written by the hospital (or by the simulation for its simulated hospitals)."""

    site: SiteConfig
    data: DataConfig
    release: str
    cache: str
    today: date | None = None
    intake: date | None = None
    server_key: str | None = None
    server_domain: str = ""
    withdraws: str = ""


@dataclass(frozen=True)
class SiteConfiguration:
    """``folder`` is the site's own; ``release`` the folder of images it reads; ``cache`` holds its images on the network grid.

    ``today``: the simulated day, None for the calendar's. ``intake``: the simulated day on which subjects were taken in, None
    for the day on which that happens. ``server_key``: the public key (hex) of the server that the hospital deals with, None if
    any will do. ``server_domain``: the security domain in which that server is, empty if the hospital does not know.
    ``withdraws``: in a simulation, the order at which a subject withdraws consent. What the hospital lets out stands in files
    of its own beside this one (`rules`).
    """

    site: SiteConfig
    data: DataConfig
    folder: Path
    release: Path
    cache: Path
    today: date | None = None
    intake: date | None = None
    server_key: str | None = None
    withdraws: str = ""
    server_domain: str = ""

    @classmethod
    def read(cls, path: Path) -> SiteConfiguration:
        """The station of a ``station.json``. Raises FolderError if it is gone or damaged."""
        try:
            content = ConfigurationFile.model_validate_json(content_of(path).removeprefix(BOM_UTF8))
        except ValidationError:
            raise damaged(path, "was changed, or is cut short: it describes no site") from None
        return cls(
            content.site,
            content.data,
            path.parent,
            Path(content.release),
            Path(content.cache),
            content.today,
            content.intake,
            content.server_key,
            content.withdraws,
            content.server_domain,
        )

    @classmethod
    def find(cls, context: Context) -> SiteConfiguration:
        """The station of the node on which the program runs."""
        if "station" in context.node_config:
            return cls.read(Path(str(context.node_config["station"])))
        stations = sorted(Path(os.environ[STATIONS]).glob("*/station.json"))
        return cls.read(stations[int(context.node_config["partition-id"])])
