"""A trace as one self-contained page: the picture, and under it the same as a table."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from fedprivseg.trace.figure import lines_of, places, subtitle_of, svg_of, title_of
from fedprivseg.trace.record import Trace


def page_of(trace: Trace) -> str:
    """The page as HTML."""
    template = files("fedprivseg.trace").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        trace=trace,
        title=title_of(trace),
        subtitle=subtitle_of(trace),
        picture=Markup(svg_of(trace)),
        columns=max(places(trace.forms).values(), default=0) + 1,
        rows=[(form, lines_of(form.references)) for form in trace.forms],
    )
