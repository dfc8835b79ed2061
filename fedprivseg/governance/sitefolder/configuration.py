"""How a site's program is set up: its public description, its data, its own folder and whom it deals with.

A site names its configuration file in Flower's node configuration (``station = "/path/station.json"``).
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from fedprivseg.core.config import DataConfig, SiteConfig
from fedprivseg.core.documents import content_of, damaged
from fedprivseg.core.model import Frozen

if TYPE_CHECKING:  # who reads a configuration needs no Flower
    from flwr.app import Context


class SiteConfiguration(Frozen):
    """A site's settings, written by the hospital, or by the simulation for its simulated hospitals. What the hospital lets out
    stands in files of its own beside them.

    Attributes:
        folder: where they lie: the site's own.
        site: its public description.
        data: how its subjects are split.
        release: the folder of its images.
        cache: the folder of its images on the network grid.
        today: the day by which it counts; None for the calendar's.
        intake: the day on which subjects were enrolled; None for the day on which the program enrols them.
        server_key: the public key (hex) of the server that it deals with; None if any will do.
        server_domain: the security domain of that server, empty if the hospital does not know it.
        seed: the root of the site's own random draws, which a hospital draws from the system's generator and tells nobody;
            None for the scenario's, which everybody knows.
        withdraws: in run folders of earlier releases; nothing reads it.
    """

    folder: Path = Field(exclude=True)
    site: SiteConfig
    data: DataConfig
    release: Path
    cache: Path
    today: date | None = None
    intake: date | None = None
    server_key: str | None = None
    server_domain: str = ""
    seed: int | None = Field(default=None, ge=0)
    withdraws: str = Field(default="", exclude=True)

    @classmethod
    def read(cls, path: Path) -> SiteConfiguration:
        """The configuration in a ``station.json``. Raises FolderError if it is gone or damaged."""
        try:
            return cls.model_validate({**json.loads(content_of(path).removeprefix(BOM_UTF8)), "folder": path.parent})
        except (TypeError, ValueError):
            raise damaged(path, "was changed, or is cut short: it describes no site") from None

    @classmethod
    def find(cls, context: Context) -> SiteConfiguration:
        """The configuration of the node on which the program runs."""
        return cls.read(cls.place(context))

    @staticmethod
    def place(context: Context) -> Path:
        """The configuration file of the node on which the program runs."""
        return Path(str(context.node_config["station"]))
