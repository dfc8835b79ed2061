"""Arrays in safetensors bytes, read where they lie: nothing is copied, and nothing is written again to see that all is there.

The format lays arrays by type and name, one after the other, so its header follows from names, types and shapes alone. Bytes
whose header is that one hold these arrays and nothing beside them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
from safetensors.numpy import save

_CODES = {
    np.dtype(name): code
    for name, code in (
        ("u8", "U64"),
        ("i8", "I64"),
        ("f8", "F64"),
        ("c8", "C64"),
        ("f4", "F32"),
        ("u4", "U32"),
        ("i4", "I32"),
        ("f2", "F16"),
        ("u2", "U16"),
        ("i2", "I16"),
        ("i1", "I8"),
        ("u1", "U8"),
        ("?", "BOOL"),
    )
}
"""The types that the format knows and numpy too, in the order in which it lays them."""

_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_PLACES = {code: place for place, code in enumerate(_CODES.values())}

Form = tuple[str, Sequence[int]]
"""The code of an array's type, and its shape."""


def encoded(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """`arrays` as safetensors bytes; the same arrays always give the same bytes, if `metadata` has one key at most."""
    return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}, metadata=metadata)  # type: ignore[arg-type]


def decoded(body: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of safetensors bytes, read-only views of `body`, and the metadata.

    Raises ValueError, LookupError, TypeError or ArithmeticError if these are no such bytes as `encoded` writes of what can be
    read from them: what could hide beside the arrays is refused.
    """
    end = 8 + int.from_bytes(body[:8], "little")
    if end > len(body):
        raise ValueError("they end within their header")
    fields = json.loads(body[8:end])
    metadata = fields.pop("__metadata__", None)
    forms = {name: (entry["dtype"], entry["shape"]) for name, entry in fields.items()}
    if header(forms, metadata) != body[:end]:
        raise ValueError("their header is not that of the arrays which it names")
    arrays, start = {}, end
    for name in _laid(forms):
        dtype, shape = _DTYPES[forms[name][0]], forms[name][1]
        arrays[name] = np.frombuffer(body, dtype, math.prod(shape), start).reshape(shape)
        start += arrays[name].nbytes
    if start != len(body):
        raise ValueError("they hold more than the arrays that can be read from them")
    return arrays, metadata or {}


def header(forms: Mapping[str, Form], metadata: Mapping[str, str] | None = None) -> bytes:
    """The header, its length before it, of safetensors bytes of arrays of these `forms`, to the byte.

    Raises ValueError, LookupError, TypeError or ArithmeticError for what are no forms of arrays, or no metadata.
    """
    entries: dict[str, object] = {}
    if metadata is not None:
        if any(type(text) is not str for text in metadata.values()):
            raise TypeError("metadata are texts")
        entries["__metadata__"] = dict(metadata)
    start = 0
    for name in _laid(forms):
        code, shape = forms[name]
        if any(type(length) is not int or length < 0 for length in shape):
            raise ValueError("a shape is of whole numbers from 0 on")
        size = math.prod(shape) * _DTYPES[code].itemsize
        entries[name] = {"dtype": code, "shape": [*shape], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, in hex: that of their safetensors bytes without metadata, which are not written for it."""
    content = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    forms = {name: (_CODES[array.dtype], array.shape) for name, array in content.items()}
    found = hashlib.sha256(header(forms))
    for name in _laid(forms):
        found.update(content[name].reshape(-1).view(np.uint8).data if content[name].size else b"")
    return found.hexdigest()


def _laid(forms: Mapping[str, Form]) -> list[str]:
    return sorted(forms, key=lambda name: (_PLACES[forms[name][0]], name))
