"""The base of every record that is read from a file or written to one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A record that nobody changes, with no key that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
