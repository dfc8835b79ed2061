"""A run in the text format that Prometheus reads (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from fedprivseg.core.accounts import OK
from fedprivseg.study.watch.progress_now import RunNow, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


def metrics_text(run: RunNow) -> str:
    """Every number that the page shows."""
    info = {"name": run.name, "method": run.method, "variant": run.variant, "engine": run.engine}
    doing = [] if run.doing is None or not run.doing.total else [run.doing]
    sites = [({"site": site.name}, site) for site in run.sites]
    families = (
        _family("run_info", "gauge", "What is run; always 1.", [(info, 1)]),
        _family(
            "run_state",
            "gauge",
            "1 for the state of the run.",
            [({"state": s}, s == run.state) for s in get_args(State)],
        ),
        _family("stage_seconds", "gauge", "Stages that ended.", [({"stage": s.name}, s.seconds) for s in run.stages]),
        _family(
            "stage_progress_ratio",
            "gauge",
            "Of the present stage.",
            [({"stage": d.stage}, d.done / d.total) for d in doing],
        ),
        _family(
            "site_taking_part", "gauge", "1 while it takes part.", [(who, site.status == OK) for who, site in sites]
        ),
        _family(
            "site_sent_bytes_total", "counter", "Payloads from the site.", [(who, site.sent) for who, site in sites]
        ),
        _family(
            "site_received_bytes_total",
            "counter",
            "Payloads to the site.",
            [(who, site.received) for who, site in sites],
        ),
        _family(
            "site_seconds_total", "counter", "By the site's own clock.", [(who, site.seconds) for who, site in sites]
        ),
        _family(
            "site_orders_total", "counter", "Orders that it answered.", [(who, site.orders) for who, site in sites]
        ),
        _family(
            "site_errors_total", "counter", "Errors that it answered with.", [(who, site.errors) for who, site in sites]
        ),
        _family(
            "blocked_payloads_total",
            "counter",
            "Payloads that the site's gate kept.",
            [({**who, "rule": rule}, count) for who, site in sites for rule, count in site.blocked.items()],
        ),
        _family(
            "ledger_lines",
            "gauge",
            "Lines of each party's ledger.",
            [
                ({"party": "server"}, run.ledger_lines),
                *(({"party": site.name}, site.ledger_lines) for site in run.sites),
            ],
        ),
    )
    return "".join(families)


def _family(name: str, kind: Literal["gauge", "counter"], words: str, samples: Iterable[Sample]) -> str:
    full = f"fedprivseg_{name}"
    lines = [f"# HELP {full} {words}", f"# TYPE {full} {kind}"]
    lines += [f"{full}{{{_labels(labels)}}} {float(value)!r}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())
