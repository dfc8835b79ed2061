"""The server's ledger, counted while it grows."""

from __future__ import annotations

from live_run import HEAD, LiveRun

from fedprivseg.study.watch.tally import MOST_BLOCKED, Tally


def test_lines_are_counted_once_each_time_some_came(tmp_path):
    live = LiveRun(tmp_path / "run")
    tally = Tally(live.run.server.ledger)
    live.receipt("centre1", bytes=100, sent=20, centiseconds=150)
    tally.update()
    tally.update()
    assert tally.lines == 2, "the key, and one receipt"
    live.receipt("centre1", number=1, bytes=50, centiseconds=50)
    live.receipt("centre2", error="ValueError", log="abc")
    live.blocked("centre3", "kind.not-allowed", "blocked")
    tally.update()
    one, two, three = (tally.sites[f"centre{n}"] for n in (1, 2, 3))
    assert (one.orders, one.seconds, one.ledger_lines, one.ledger_head) == (2, 2.0, 7, HEAD)
    assert tally.receipts.size("centre1") == (150, 20)
    assert (two.errors, one.errors) == (1, 0)
    assert three.blocked == {"kind.not-allowed": 1}
    assert [(each.site, each.action, each.rule) for each in tally.blocked] == [
        ("centre3", "send_image_codes", "kind.not-allowed")
    ]
    assert tally.head == live.ledger._last
    assert tally.fault == ""


def test_half_a_line_waits_for_its_other_half(tmp_path):
    live = LiveRun(tmp_path / "run")
    live.receipt("centre1", bytes=100)
    path, whole = live.run.server.ledger, live.run.server.ledger.read_bytes()
    path.write_bytes(whole[:-30])
    tally = Tally(path)
    tally.update()
    assert (tally.lines, tally.sites, tally.fault) == (1, {}, "")
    path.write_bytes(whole)
    tally.update()
    assert tally.lines == 2
    assert tally.sites["centre1"].orders == 1


def test_a_line_that_is_none_ends_the_counting(tmp_path):
    live = LiveRun(tmp_path / "run")
    with live.run.server.ledger.open("ab") as file:
        file.write(b'{"event": "receipt"}\n')
    tally = Tally(live.run.server.ledger)
    tally.update()
    assert tally.lines == 1
    assert "line 1 cannot be read" in tally.fault


def test_of_many_blocked_payloads_the_latest_are_kept_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    live = LiveRun(tmp_path / "run")
    for number in range(MOST_BLOCKED + 5):
        live.receipt("centre1", number=number, rule="metric.size")
    tally = Tally(live.run.server.ledger)
    tally.update()
    assert len(tally.blocked) == MOST_BLOCKED
    assert tally.sites["centre1"].blocked == {"metric.size": MOST_BLOCKED + 5}
