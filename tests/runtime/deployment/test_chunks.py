"""Large payloads in pieces: what is put together is what was split, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedprivseg.core.errors import PayloadError
from fedprivseg.runtime.deployment import chunks
from fedprivseg.runtime.deployment.chunks import join, split


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(chunks, "PIECE", 10)


def _content(**values):
    return RecordDict({"released": ConfigRecord(values), "other": ConfigRecord({"n": 3})})


@pytest.mark.parametrize("size", [0, 9, 10, 11, 20, 95])
def test_what_is_put_together_is_what_was_split(small, size):
    body = bytes(range(size))
    content = _content(body=body, site="centre1", seconds=0.5)
    there = split(content)
    assert all(
        len(value) <= 10
        for record in there.config_records.values()
        for value in record.values()
        if isinstance(value, bytes)
    )
    assert {name: dict(record) for name, record in join(there).items()} == {
        name: dict(record) for name, record in content.items()
    }


def test_what_is_small_stays_as_it_is(small):
    content = _content(body=b"short")
    assert split(content) is content
    assert join(content) is content


def test_no_object_is_larger_than_a_piece():
    """4 MB, of the real size: what Flower stores and sends as one."""
    content = split(RecordDict({"released": ConfigRecord({"body": bytes(9_000_000)})}))
    sizes = [len(each.deflate()) for each in get_all_nested_objects(content).values()]
    assert max(sizes) < 4_001_000
    assert len(join(content).config_records["released"]["body"]) == 9_000_000


def test_a_message_that_lies_of_its_pieces_is_none(small):
    whole = split(_content(body=bytes(35)))
    lost = RecordDict({name: record for name, record in whole.items() if not name.endswith("00002")})
    counts = dict(whole["pieces"])
    lies = [
        lost,
        RecordDict({**whole, "pieces": ConfigRecord({**counts, "released/body": 10**9})}),
        RecordDict({**whole, "pieces": ConfigRecord({**counts, "released/body": 0})}),
        RecordDict({**whole, "pieces": ConfigRecord({**counts, "nobody/body": 1})}),
        RecordDict({**whole, "released/body/00001": ConfigRecord({"piece": bytes(11)})}),
        RecordDict({**whole, "released/body/00001": ConfigRecord({"piece": "text"})}),
    ]
    for lie in lies:
        with pytest.raises(PayloadError):
            join(lie)
