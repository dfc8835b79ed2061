"""The numbers of a run for Prometheus, read as its format says."""

from __future__ import annotations

import re

from fedprivseg.study.watch.progress_now import Doing, RunNow, SiteNow, StageNow
from fedprivseg.study.watch.prometheus import metrics_text

_SAMPLE = re.compile(r'(?P<name>[a-z_]+)\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (?P<value>[-+0-9.e]+)')
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')


def parsed(text):
    """(name, labels) -> value; every line is of the format, and every family says first what it is."""
    found, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            assert sample["name"] in kinds
            assert (kinds[sample["name"]] == "counter") == sample["name"].endswith("_total")
            key = sample["name"], tuple(sorted(_LABEL.findall(sample["labels"])))
            assert key not in found
            found[key] = float(sample["value"])
    assert text.endswith("\n")
    return found


def site(name, **changes):
    given = {
        "title": "",
        "status": "ok",
        "doing": None,
        "sent": 0,
        "received": 0,
        "seconds": 0.0,
        "orders": 0,
        "errors": 0,
    }
    given |= {"blocked": {}, "ledger_lines": 0, "ledger_head": "", "heard": ""}
    return SiteNow(name=name, **{**given, **changes})


def test_every_number_of_the_page():
    sites = (
        site("a", sent=100, received=20, seconds=1.5, orders=3, errors=1),
        site("b", status="gone", blocked={"x.y": 2}),
    )
    run = RunNow(
        state="running",
        name="q",
        doing=Doing(stage="send", done=1, total=4),
        stages=(StageNow(name="fit", seconds=2.5),),
        sites=sites,
        ledger_lines=9,
    )
    found = parsed(metrics_text(run))
    for name, labels, value in [
        ("run_state", {"state": "running"}, 1),
        ("run_state", {"state": "finished"}, 0),
        ("stage_seconds", {"stage": "fit"}, 2.5),
        ("stage_progress_ratio", {"stage": "send"}, 0.25),
        ("site_taking_part", {"site": "a"}, 1),
        ("site_taking_part", {"site": "b"}, 0),
        ("site_sent_bytes_total", {"site": "a"}, 100),
        ("site_received_bytes_total", {"site": "a"}, 20),
        ("site_seconds_total", {"site": "a"}, 1.5),
        ("site_orders_total", {"site": "a"}, 3),
        ("site_errors_total", {"site": "a"}, 1),
        ("blocked_payloads_total", {"site": "b", "rule": "x.y"}, 2),
        ("ledger_lines", {"party": "server"}, 9),
    ]:
        assert found[f"fedprivseg_{name}", tuple(sorted(labels.items()))] == value


def test_a_run_that_has_not_begun():
    assert parsed(metrics_text(RunNow(state="not begun")))["fedprivseg_run_state", (("state", "not begun"),)] == 1


def test_no_text_breaks_out_of_its_label():
    stages = (StageNow(name='a"} 1\nfedprivseg_run_state{state="finished\\', seconds=1.0),)
    found = parsed(metrics_text(RunNow(state="running", stages=stages)))
    assert found["fedprivseg_run_state", (("state", "finished"),)] == 0
