"""A term of retention (T/SCGS 313008-2024 clauses 5.7-b, 5.8-b): the standard names none, a site's policy states it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import final

from pydantic import Field

from fedprivseg.core.errors import RequestError
from fedprivseg.core.model import Frozen


@final
class Term(Frozen):
    """A length of time, in days."""

    days: int = Field(ge=0, le=36_500)

    def end(self, start: date) -> date:
        """The first day after the term that begins on `start`. Raises RequestError beyond the year 9999."""
        try:
            return start + timedelta(days=self.days)
        except OverflowError:
            raise RequestError(
                "a term ends after the year 9999. Shorten it, or correct the day on which it starts."
            ) from None
