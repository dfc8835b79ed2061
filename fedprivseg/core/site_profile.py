"""How a hospital computes, how it is connected and when it is there: the table ``[profile]`` of a ``site.toml``.

No run depends on it. The virtual clock (`study.clock`) makes a simulated wall time of it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from fedprivseg.core.model import Frozen

TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]

_KINDS = ("daily", "trace", "markov")


class Markov(Frozen):
    """There and away by turns, each for an exponential time that is drawn; it begins there.

    Attributes:
        there: mean hours that the site is there.
        away: mean hours that it is not.
    """

    there: float = Field(gt=0, le=8784)
    away: float = Field(gt=0, le=8784)


class Availability(Frozen):
    """When a site works for the study; with none of the three it always does.

    Attributes:
        daily: from when to when each day, such as ``["20:00", "06:00"]``.
        trace: hours there and hours away, by turns from the first moment of the study, such as ``[9, 15, 8, 64]``; it begins
            anew at its end.
        markov: at random.
    """

    daily: tuple[TimeOfDay, TimeOfDay] | None = None
    trace: tuple[float, ...] | None = None
    markov: Markov | None = None

    @field_validator("daily")
    @classmethod
    def _a_window(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        if value is not None and value[0] == value[1]:
            raise ValueError('from and until are the same; a site that is always there has availability = "always"')
        return value

    @field_validator("trace")
    @classmethod
    def _by_turns(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or len(value) % 2 or not all(0 < hours <= 8784 for hours in value)):
            raise ValueError("must be hours there and hours away by turns, an even number of them, each above 0")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> Availability:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; a site is available in one way")
        return self


class SiteProfile(Frozen):
    """What the virtual clock knows of a site. Defaults: the machine that measured, behind a common line."""

    speed: float = Field(
        default=1.0,
        gt=0,
        le=10_000,
        description="computing speed, as a multiple of what one site had on the machine that measured",
    )
    share: float = Field(default=1.0, gt=0, le=1, description="share of the CPU or GPU that the study gets")
    uplink: float = Field(default=100.0, ge=0.001, le=1e6, description="from the site to the server, Mbit/s")
    downlink: float = Field(default=100.0, ge=0.001, le=1e6, description="from the server to the site, Mbit/s")
    latency: float = Field(
        default=20.0, ge=0, le=60_000, description="round trip between site and server, ms, as ping shows it"
    )
    loss: float = Field(default=0.0, ge=0, le=0.1, description="share of packets that are lost")
    availability: Availability = Availability()
    crash: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="chance that an order is lost to a crash and begun anew, each time it is begun",
    )

    @field_validator("availability", mode="before")
    @classmethod
    def _in_a_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "always":
            raise ValueError('in one word it is "always"; otherwise a table with daily, trace or markov')
        return {} if value == "always" else value
