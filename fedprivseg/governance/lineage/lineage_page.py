"""A trace as one self-contained page: the image, and under it the same as a table."""

from __future__ import annotations

from markupsafe import Markup

from fedprivseg.core.pages.frame import render
from fedprivseg.governance.lineage.diagram import lines_of, places, subtitle_of, svg_of, title_of
from fedprivseg.governance.lineage.provenance import Trace


def page_of(trace: Trace) -> str:
    """The page as HTML."""
    return render(
        "governance/lineage/lineage_page.html",
        trace=trace,
        title=title_of(trace),
        subtitle=subtitle_of(trace),
        picture=Markup(svg_of(trace, titled=False)),
        columns=max(places(trace.artefacts).values(), default=0) + 1,
        rows=[(each, lines_of(each.references)) for each in trace.artefacts],
    )
