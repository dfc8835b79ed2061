"""Documents of a run's folder: every damage is one sentence that names the file and what helps."""

from __future__ import annotations

import json

import pytest

from fedprivseg.core.documents import read_document, write_document
from fedprivseg.core.errors import FolderError

CONTENT = {"mean_dice": 0.8125, "notes": ["Löwe"], "sites": {"a": {"bytes": 12}}}


@pytest.fixture
def path(tmp_path):
    write_document(tmp_path / "result.json", CONTENT)
    return tmp_path / "result.json"


def test_a_document_says_what_was_written(path):
    assert read_document(path) == CONTENT


def test_one_of_an_earlier_release_has_no_digest_and_is_read(path):
    path.write_text(json.dumps(CONTENT))
    assert read_document(path) == CONTENT


def test_no_byte_can_change_without_notice(path):
    """Any other byte in any place: refused, or the same content, as where a space became a tab."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        for byte in (whole[place] ^ 1, ord("9"), 0):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                found = read_document(path)
            except FolderError:
                continue
            # A digest under another name is none; what it stood for still has to be the same.
            assert {key: value for key, value in found.items() if key in CONTENT} == CONTENT


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (b'{"mean_dice": 0.8', "is cut short"),
        (b"\xff\xfe{}", "is cut short or was changed"),
        (b"[1]", "holds no JSON object"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_every_damage_is_one_sentence_with_the_file_and_a_remedy(path, body, says):
    path.unlink()
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(FolderError, match=says) as caught:
        read_document(path)
    assert caught.value.status == 2
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("Put back a copy of it, or run the scenario into another folder.")


def test_a_folder_in_its_place_is_said(tmp_path):
    with pytest.raises(FolderError, match="cannot be read"):
        read_document(tmp_path)
