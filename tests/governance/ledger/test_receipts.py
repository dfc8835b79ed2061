"""Bytes as the server's own ledger tells: a payload that is asked for again counts once."""

from __future__ import annotations

import pytest

from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.ledger.ledger import Ledger, read
from fedprivseg.governance.ledger.receipts import Receipts


@pytest.fixture
def book(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl", SiteKey.create(tmp_path / "key.pem"), "server")


def receipt(book, number=0, site="a", action="send", **facts):
    return book.append("receipt", {"action": action, "number": number, "site": site, **facts})


def test_bytes_are_those_of_each_payload_once(book):
    receipt(book, action="describe", bytes=1000, digest="d0")
    receipt(book, bytes=10, digest="d1")
    receipt(book, number=1, bytes=20, digest="d2", sent=5)
    receipt(book, number=1, bytes=21, digest="d3", sent=5)  # asked for again after a kill
    receipt(book, site="b", bytes=7, digest="d4")
    receipt(book, site="b", number=1, rule="consent.no-longer-valid", sent=5)
    found = Receipts(read(book.path))
    assert found.size("a") == (10 + 21, 5)
    assert found.size("b") == (7, 5)
    assert found.size("c") == (0, 0)
    assert found.digests["a", "send", 1] == "d3"
    assert found.orders == {("send", 0), ("send", 1)}


def test_what_is_made_again_after_a_withdrawal_counts_besides(book):
    receipt(book, bytes=10, digest="d1")
    book.append("withdrawal", {"site": "a"})
    receipt(book, bytes=8, digest="d2")
    found = Receipts(read(book.path))
    assert found.size("a") == (18, 0)
    assert found.digests["a", "send", 0] == "d2"
