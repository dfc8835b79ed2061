"""Large payloads in pieces: Flower gives up a message of which one object takes longer than 180 s to come.

A record of bytes is one object in Flower, whatever its size: at 10 Mbit/s one of more than 225 MB never arrives. Here it
becomes records of at most `PIECE` bytes, each an object of its own, and is put together again at the other end.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, RecordDict

from fedprivseg.core.errors import PayloadError
from fedprivseg.runtime.deployment.kit import PIECE
from fedprivseg.runtime.wire import MOST_BYTES

_PIECES, _PIECE = "pieces", "piece"
"""The name of a record that says how many pieces a value has, and the key of a piece."""


def split(content: RecordDict) -> RecordDict:
    """`content` with every value of more than `PIECE` bytes in pieces; itself if there is none."""
    found: dict[str, ConfigRecord] = {}
    counts: dict[str, int] = {}
    for name, record in content.config_records.items():
        small = {}
        for key, value in record.items():
            if not isinstance(value, bytes) or len(value) <= PIECE:
                small[key] = value
                continue
            starts = range(0, len(value), PIECE)
            counts[f"{name}/{key}"] = len(starts)
            for number, start in enumerate(starts):
                found[_place(name, key, number)] = ConfigRecord({_PIECE: value[start : start + PIECE]})
        found[name] = ConfigRecord(small)
    return RecordDict({**found, _PIECES: ConfigRecord(counts)}) if counts else content  # type: ignore[arg-type]


def join(content: RecordDict) -> RecordDict:
    """What `split` was given.

    Raises:
        PayloadError: a piece is missing, or is none, or they are more than a payload may have.
    """
    records = dict(content.config_records)
    if _PIECES not in records or len(records) != len(content):
        return content
    counts = records.pop(_PIECES)
    values: dict[tuple[str, str], bytes] = {}
    for place, count in counts.items():
        name, _, key = place.partition("/")
        if type(count) is not int or not 0 < count <= MOST_BYTES // PIECE + 1 or name not in records:
            raise PayloadError("the message says of itself in how many pieces it came, and that cannot be")
        pieces = [_piece(records.pop(_place(name, key, number), None)) for number in range(count)]
        if not all(isinstance(piece, bytes) and len(piece) <= PIECE for piece in pieces):
            raise PayloadError("the message came in pieces, and one of them is missing or too large")
        values[name, key] = b"".join(pieces)  # type: ignore[arg-type]
    joined = {name: ConfigRecord(dict(record)) for name, record in records.items()}
    for (name, key), value in values.items():
        joined[name][key] = value
    return RecordDict(joined)  # type: ignore[arg-type]


def _piece(record: ConfigRecord | None) -> object:
    return None if record is None else record.get(_PIECE)


def _place(name: str, key: str, number: int) -> str:
    return f"{name}/{key}/{number:05d}"
