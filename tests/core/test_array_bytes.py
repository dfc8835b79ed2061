"""Arrays in safetensors bytes: as the format's own library writes and reads them, and without a copy."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from fedprivseg.core.array_bytes import arrays_digest, decoded, encoded

TYPES = ("bool", "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "complex64")
TYPES += ("float64", "int64", "uint64")
MALFORMED = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError)

contents = st.dictionaries(
    st.text(max_size=6).filter(
        lambda name: (name != "__metadata__" and name.isprintable()) or name in ("\t", '"', "\\")
    ),
    hnp.arrays(
        st.sampled_from([np.dtype(name) for name in TYPES]), hnp.array_shapes(min_dims=1, min_side=0, max_side=3)
    ),
    max_size=5,
)
notes = st.one_of(st.none(), st.dictionaries(st.just("note"), st.text(max_size=9), min_size=1))


@given(contents, notes)
def test_it_is_what_the_library_writes_and_reads(content, metadata):
    body = encoded(content, metadata)
    assert body == save({name: content[name] for name in sorted(content)}, metadata)
    found, told = decoded(body)
    assert told == (metadata or {})
    known = load(body)
    assert found.keys() == known.keys()
    for name, array in found.items():
        assert (array.dtype, array.shape) == (known[name].dtype, known[name].shape)
        assert array.tobytes() == known[name].tobytes()
    assert arrays_digest(content) == hashlib.sha256(save(content)).hexdigest()


@given(contents, st.data())
def test_whatever_else_the_library_would_read_is_refused(content, data):
    """One byte changed: either the same arrays are encoded otherwise, or it is the one encoding of other arrays."""
    body = bytearray(encoded(content, {"note": "x"}))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found, told = decoded(bytes(body))
    except MALFORMED:
        return
    assert encoded(found, told) == bytes(body)


@pytest.mark.parametrize("more", [b"\0", b"x" * 8])
def test_what_hides_behind_the_arrays_is_refused(more):
    body = encoded({"a": np.ones(3)})
    with pytest.raises(ValueError, match="hold more than the arrays"):
        decoded(body + more)
    with pytest.raises(ValueError, match="within their header|buffer"):
        decoded(body[:-1])
    with pytest.raises(ValueError, match="within their header"):
        decoded(b"")


def test_what_hides_in_the_header_is_refused():
    body = encoded({"a": np.ones(1, np.uint8)})
    size = int.from_bytes(body[:8], "little")
    padded = (size + 8).to_bytes(8, "little") + body[8 : 8 + size] + b" " * 8 + body[8 + size :]
    assert load(padded)["a"].tolist() == [1], "the library reads it"
    with pytest.raises(ValueError, match="header"):
        decoded(padded)


def test_arrays_are_views_that_nobody_writes_to():
    body = encoded({"a": np.arange(5.0)})
    (array,) = decoded(body)[0].values()
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_the_order_of_bytes_makes_no_other_digest():
    assert arrays_digest({"a": np.arange(3, dtype=">f4")}) == arrays_digest({"a": np.arange(3, dtype="<f4")})
