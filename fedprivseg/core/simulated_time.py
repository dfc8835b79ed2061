"""What a run would take between hospitals of stated profiles: the virtual clock's numbers, as ``result.json`` keeps them."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from fedprivseg.core.model import Frozen


class _Read(Frozen):
    # What a later release adds is passed over.
    model_config = ConfigDict(extra="ignore")


class SiteTime(_Read):
    """One site's seconds, by what they went on; together with waiting they are the whole study.

    Attributes:
        down_s: receiving orders and their answers.
        compute_s: computing.
        up_s: sending payloads.
        away_s: away while there was work to do.
        crashed_s: lost to crashes, and to starting again after them.
        waiting_s: for the server, and for the other sites.
        crashes: how many.
        late: orders that it answered after their deadline.
    """

    down_s: float
    compute_s: float
    up_s: float
    away_s: float
    crashed_s: float
    waiting_s: float
    crashes: int
    late: int

    @property
    def busy_s(self) -> float:
        """Seconds for which others may have waited: all but those in which it waited itself."""
        return self.down_s + self.compute_s + self.up_s + self.away_s + self.crashed_s


class StageTime(_Read):
    """One stage of the run.

    Attributes:
        start_s, end_s: from the beginning of the study.
        server_s: of them, the server's own work.
        sites: site -> seconds from an order to its answer, summed over the stage's orders.
    """

    start_s: float
    end_s: float
    server_s: float
    sites: dict[str, float]


class Bar(_Read):
    """A span of one site, or of the server, in one stage. ``what``: at work, or away while there was work to do."""

    site: str
    stage: str
    what: Literal["work", "away"]
    start_s: float
    end_s: float


class SimulatedTime(_Read):
    """A run's simulated wall time.

    Attributes:
        total_s: from the first order to the last answer, and what the server does after it.
        deadline_s: how long the server waited for an answer at most.
        sites: by name.
        stages: by name, in order.
        bars: for a picture; spans with less than 1/400 of the study between them are one.
    """

    total_s: float
    deadline_s: float
    sites: dict[str, SiteTime]
    stages: dict[str, StageTime]
    bars: tuple[Bar, ...] = ()
