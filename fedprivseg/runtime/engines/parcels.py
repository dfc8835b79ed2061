"""Large bodies of a message on their way between processes of one machine or cluster: beside the message, not in it.

Ray hands arrays over in memory that both processes see; bytes within a message it would copy twice more on each side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

_LARGE = 1 << 16
"""From so many bytes on a body travels beside its message."""


class Parcel(NamedTuple):
    """A message and its large bodies.

    Attributes:
        message: without them.
        bodies: by record and key, (n,) uint8.
    """

    message: Message
    bodies: dict[tuple[str, str], np.ndarray]


def packed(message: Message) -> Parcel:
    """`message`, which stays as it is, as a parcel."""
    if message.has_error():
        return Parcel(message, {})
    bodies: dict[tuple[str, str], np.ndarray] = {}
    content = RecordDict(dict(message.content))
    for name, record in message.content.config_records.items():
        large = {key: value for key, value in record.items() if isinstance(value, bytes) and len(value) >= _LARGE}
        if large:
            content[name] = ConfigRecord({**record, **dict.fromkeys(large, b"")})
            bodies |= {(name, key): np.frombuffer(value, np.uint8) for key, value in large.items()}
    return Parcel(Message(content, metadata=message.metadata), bodies)  # type: ignore[call-overload]


def unpacked(parcel: Parcel) -> Message:
    """The message in `parcel`."""
    for (name, key), body in parcel.bodies.items():
        parcel.message.content.config_records[name][key] = body.tobytes()
    return parcel.message
