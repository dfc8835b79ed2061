"""Arrays on the disk: what was written comes back to the bit, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedprivseg.core.arrays import facts_of, load_arrays, load_with_facts, save_arrays
from fedprivseg.core.errors import FolderError

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "count": np.array(7, np.int64),
    "none": np.empty((0, 4), np.float16),
}


def test_arrays_and_facts_come_back_as_they_were(tmp_path):
    save_arrays(tmp_path / "a", ARRAYS, {"sites": "a b", "round": "3"})
    arrays, facts = load_with_facts(tmp_path / "a")
    assert facts == facts_of(tmp_path / "a") == {"sites": "a b", "round": "3"}
    assert arrays.keys() == ARRAYS.keys()
    for name, value in ARRAYS.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].shape == value.shape


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    for name in "abcd":
        save_arrays(tmp_path / name, ARRAYS, {"sites": "a b", "round": "3"})
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_no_bit_can_change_without_notice(tmp_path):
    """Every byte of the file: its arrays, their names and shapes, what is kept with them, and the digest itself."""
    path = tmp_path / "a"
    save_arrays(path, {"weight": ARRAYS["weight"]}, {"round": "3"})
    whole = path.read_bytes()
    silent = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            arrays, facts = load_with_facts(path)
        except FolderError:
            continue
        same = facts == {"round": "3"} and np.array_equal(arrays.get("weight"), ARRAYS["weight"])
        silent += [] if same else [place]
    # The name of the note is what says that there is a digest: without it the file counts as one of an earlier release.
    note = whole.index(b"fedprivseg")
    assert set(silent) <= set(range(note, note + len(b"fedprivseg")))


@pytest.mark.parametrize(
    ("kept", "says"), [(None, "is missing"), (0, "is empty"), (9, "cut short"), (-1, "cut short"), (-9, "cut short")]
)
def test_a_file_that_is_gone_or_cut_short_is_one_sentence(tmp_path, kept, says):
    path = tmp_path / "model.safetensors"
    save_arrays(path, ARRAYS)
    whole = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(whole[:kept])
    for read in (load_arrays, facts_of):
        with pytest.raises(FolderError, match=says) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_file_of_an_earlier_release_has_no_digest_and_is_read(tmp_path):
    save_file({"weight": np.ones(3, np.float32)}, tmp_path / "a", {"sites": "a b"})
    assert facts_of(tmp_path / "a") == {"sites": "a b"}
    np.testing.assert_array_equal(load_arrays(tmp_path / "a")["weight"], 1)
