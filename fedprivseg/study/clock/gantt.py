"""The stages of a run in simulated time, a row a site, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from fedprivseg.core.pages.drawing import MUTED, as_svg, bare, house_style, short
from fedprivseg.core.pages.looks import PALETTE
from fedprivseg.core.simulated_time import SimulatedTime
from fedprivseg.study.clock.timeline import SERVER

AWAY = "#B8C2CC"

_HATCHES = ("", "////", "....", "xxxx")
_UNITS = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))


def gantt_chart(time: SimulatedTime, labels: Mapping[str, str]) -> str:
    """Who works on which stage when. Grey: away while there was work to do; empty: waiting.

    Args:
        time: of the run.
        labels: site -> what to call it, in the order in which the rows are drawn; those without a bar have no row.
    """
    drawn = {bar.site for bar in time.bars}
    rows = {SERVER: SERVER, **{site: label for site, label in labels.items() if site in drawn}}
    unit, length = next((each for each in _UNITS if time.total_s >= 2 * each[1]), _UNITS[-1])
    places = {site: place for place, site in enumerate(rows)}
    looks: dict[str, dict[str, Any]] = {
        stage: {
            "facecolor": PALETTE[n % len(PALETTE)],
            "hatch": _HATCHES[n // len(PALETTE) % len(_HATCHES)],
            "edgecolor": "white",
            "linewidth": 0,
        }
        for n, stage in enumerate(time.stages)
    }
    with house_style("gantt"):
        figure = Figure(figsize=(10, 1.25 + 0.42 * len(rows)), layout=ConstrainedLayoutEngine())
        panel = figure.subplots()
        for bar in time.bars:
            span, place = (bar.start_s / length, (bar.end_s - bar.start_s) / length), places[bar.site]
            if bar.what == "work":
                panel.broken_barh([span], (place - 0.32, 0.64), **looks[bar.stage])
            else:
                panel.broken_barh([span], (place - 0.08, 0.16), facecolor=AWAY)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_yticks(range(len(rows)), short(list(rows.values())))
        panel.set_xlim(0, time.total_s / length)
        panel.set_xlabel(f"{unit} of simulated time")
        bare(panel, "x")
        patches = [Patch(label=stage, **look) for stage, look in looks.items()]
        if any(bar.what == "away" for bar in time.bars):
            patches.append(Patch(label="away", facecolor=AWAY))
        panel.legend(
            handles=patches,
            frameon=False,
            fontsize=8,
            ncols=4,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            labelcolor=MUTED,
        )
        return as_svg(figure, "Simulated time of the server and each hospital, by stage; the tables have the numbers")
