"""What the virtual clock goes by: orders as the server recorded them."""

from __future__ import annotations

import pytest

from fedprivseg.core.accounts import Account, Accounts
from fedprivseg.core.errors import FolderError
from fedprivseg.core.runfolder import RunFolder
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger
from fedprivseg.study.clock.exchanges import Errand, Exchange, recorded


@pytest.fixture
def server(tmp_path):
    folder = RunFolder(tmp_path).server
    folder.path.mkdir()
    return folder


def write(server, receipts, stages=None, waited=None):
    """The ledger of a server that took `receipts`, and its accounts."""
    book = Ledger(server.ledger, SiteKey.create(server.key), "server")
    for facts in receipts:
        book.append("withdrawal" if facts == "withdrawal" else "receipt", {} if facts == "withdrawal" else facts)
    Accounts({"a": Account(), "b": Account()}, stages or {}, waited or {}).save(server.path)


def receipt(action, site, stage, number=0, up=0, sent=0, seconds=0):
    facts = {"action": action, "number": number, "site": site, "bytes": up, "centiseconds": 100 * seconds}
    return facts | ({"sent": sent} if sent else {}) | ({"stage": stage} if stage else {})


def test_orders_stage_by_stage_with_the_servers_own_work(tmp_path, server):
    """The server waited for 8 of the 10 s of the rounds: its own 2 s are dealt over both. It trained alone for 5 s."""
    receipts = [
        receipt("describe", "a", ""),
        receipt("describe", "b", ""),
        receipt("train", "a", "rounds", 1, up=10, sent=20, seconds=3),
        receipt("train", "b", "rounds", 1, up=11, sent=21, seconds=4),
        receipt("train", "a", "rounds", 2, up=12, sent=22, seconds=5),
        receipt("account", "a", ""),
    ]
    write(server, receipts, {"rounds": 10.0, "alone": 5.0}, {"rounds": 8.0, "alone": 0.0})
    assert recorded(tmp_path) == (
        Exchange("roll call", "describe", 0, 0, {"a": Errand(), "b": Errand()}),
        Exchange("rounds", "train", 1, 0, {"a": Errand(20, 10, 3.0), "b": Errand(21, 11, 4.0)}, 1.0),
        Exchange("rounds", "train", 2, 0, {"a": Errand(22, 12, 5.0)}, 1.0),
        Exchange("alone", "", 0, 0, {}, 5.0),
        Exchange("between stages", "account", 0, 0, {"a": Errand()}),
    )


def test_what_was_repeated_after_an_interruption_counts_once_and_after_a_withdrawal_again(tmp_path, server):
    again = receipt("train", "a", "rounds", 1, up=10, seconds=3)
    write(server, [again, again, "withdrawal", again], {"rounds": 6.0}, {"rounds": 6.0})
    found = recorded(tmp_path)
    assert [each.attempt for each in found] == [0, 1]
    assert all(each.errands == {"a": Errand(0, 10, 3.0)} for each in found)


def test_a_run_that_recorded_no_seconds_is_refused(tmp_path, server):
    write(server, [{"action": "train", "number": 1, "site": "a", "bytes": 10}], {"rounds": 6.0})
    with pytest.raises(FolderError, match=r"recorded no seconds .* Run the scenario again"):
        recorded(tmp_path)


def test_a_folder_without_a_server_is_refused(tmp_path):
    with pytest.raises(FolderError, match=r"holds no run of a server"):
        recorded(tmp_path / "nowhere")
