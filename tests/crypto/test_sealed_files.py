"""Sealed files: what was sealed opens, and nothing else does."""

from __future__ import annotations

import copy
import errno
import hashlib
import itertools
import os
import pickle
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import write_durably
from fedprivseg.crypto import sealed_files as module
from fedprivseg.crypto.passphrase import Cost
from fedprivseg.crypto.sealed_files import HEADER_BYTES, MAGIC, SealError, SealingKey, wants_passphrase

SECRET = bytes(range(32))  # fixed, for tests only
KEY = SealingKey(SECRET)
QUICK = Cost(log2_n=4, r=2, p=1)  # 2^4 rounds: derived, and guessed, in no time
PASSPHRASE = "correct horse battery"
NAME = "codec-3"
CONTENT = b"the encoder of a centre"


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 8 bytes, so that a short content has several: the 23 bytes of CONTENT are 8 + 8 + 7."""
    monkeypatch.setattr(module, "PIECE_BYTES", 8)


def refused(key: SealingKey, name: str, sealed: bytes) -> str:
    """The message with which a file is refused; fails if it opens."""
    with pytest.raises(SealError) as caught:
        key.open(name, sealed)
    assert NAME not in str(caught.value)
    return str(caught.value)


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# ---------------------------------------------------------------------------------------------- what is written


@pytest.mark.usefixtures("_small_pieces")
def test_the_format_is_the_one_that_is_described() -> None:
    """Oracle: opened here with the libraries alone, from the description; scrypt by another implementation (hashlib)."""
    sealed = SealingKey.from_passphrase(PASSPHRASE, QUICK).seal(NAME, CONTENT)
    start, nonce, wrapped = sealed[:45], sealed[45:57], sealed[57:105]
    magic, version, source, log2_n, r, p, salt, name = struct.unpack(">8sB4B16s16s", start)
    assert (magic, version, source, log2_n, r, p, HEADER_BYTES) == (b"fpsealed", 1, 1, 4, 2, 1, 105)
    secret = hashlib.scrypt(PASSPHRASE.encode(), salt=salt, n=1 << log2_n, r=r, p=p, dklen=32)
    wrap = HKDFExpand(algorithm=SHA256(), length=32, info=b"fedprivseg sealing wrap 1").derive(secret)
    assert HKDFExpand(algorithm=SHA256(), length=16, info=b"fedprivseg sealing id 1").derive(secret) == name
    cipher = AESGCM(AESGCM(wrap).decrypt(nonce, wrapped, start + NAME.encode()))
    pieces = [sealed[first : first + 24] for first in range(105, len(sealed), 24)]
    assert [len(piece) for piece in pieces] == [24, 24, 23]  # each with its tag of 16
    said = b"fpsealed\x01" + NAME.encode()
    opened = [
        cipher.decrypt(number.to_bytes(11, "big") + bytes([number == 2]), piece, said)
        for number, piece in enumerate(pieces)
    ]
    assert b"".join(opened) == CONTENT


@settings(max_examples=60, deadline=None)
@given(
    content=st.binary(max_size=200),
    name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    size=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_what_is_sealed_opens_however_it_is_cut(content: bytes, name: str, size: int, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_BYTES", size)
        sealed = KEY.seal(name, content)
        pieces = max(1, -(-len(content) // size))
        assert len(sealed) == HEADER_BYTES + len(content) + 16 * pieces
        assert KEY.open(name, sealed) == content
        edges = [0, *sorted(min(cut, len(sealed)) for cut in cuts), len(sealed)]
        parts = [sealed[first:last] for first, last in itertools.pairwise(edges)]
        assert b"".join(KEY.open_stream(name, parts)) == content
        parts = [content[first:last] for first, last in itertools.pairwise([0, *sorted(cuts), len(content)])]
        assert KEY.open(name, b"".join(KEY.seal_stream(name, parts))) == content


def test_nothing_of_the_content_and_no_key_repeats() -> None:
    once, again = KEY.seal(NAME, CONTENT), KEY.seal(NAME, CONTENT)
    assert CONTENT not in once
    assert once[:45] == again[:45]  # what says how the key was made, and its id
    eights = [{sealed[first : first + 8] for first in range(45, len(sealed) - 7)} for sealed in (once, again)]
    assert not eights[0] & eights[1]


def test_a_long_content_is_never_held_whole() -> None:
    """1000 pieces go through while at most a few exist: each is asked for only when the last one was handed out."""
    asked: list[int] = []

    def content() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield bytes(module.PIECE_BYTES)

    ahead = []
    for handed_out, _ in enumerate(KEY.open_stream(NAME, KEY.seal_stream(NAME, content()))):
        ahead.append(len(asked) - handed_out)
    assert len(asked) == 1000
    assert max(ahead) <= 4


# ---------------------------------------------------------------------------------------------- what does not open


@pytest.mark.usefixtures("_small_pieces")
def test_any_changed_missing_or_added_byte_is_noticed() -> None:
    """Every byte of a sealed file of three pieces: each of its bits turned, the byte left out, and one put in before it."""
    sealed = KEY.seal(NAME, CONTENT)
    for place, byte in enumerate(sealed):
        for bit in range(8):
            refused(KEY, NAME, sealed[:place] + bytes([byte ^ 1 << bit]) + sealed[place + 1 :])
        refused(KEY, NAME, sealed[:place] + sealed[place + 1 :])
        refused(KEY, NAME, sealed[:place] + b"\x00" + sealed[place:])
    assert KEY.open(NAME, sealed) == CONTENT


@pytest.mark.usefixtures("_small_pieces")
def test_a_file_that_was_cut_anywhere_or_made_longer_is_noticed() -> None:
    sealed = KEY.seal(NAME, CONTENT)
    for length in range(len(sealed)):
        refused(KEY, NAME, sealed[:length])
    for more in (b"\x00", bytes(24), sealed, sealed[HEADER_BYTES:], sealed[-23:]):
        refused(KEY, NAME, sealed + more)


@pytest.mark.usefixtures("_small_pieces")
def test_pieces_that_change_places_are_noticed() -> None:
    sealed = KEY.seal(NAME, bytes(24))  # three whole pieces of the same content
    header, *pieces = sealed[:105], sealed[105:129], sealed[129:153], sealed[153:]
    assert b"".join((header, *pieces)) == sealed
    for order in itertools.product(range(3), repeat=3):
        if order != (0, 1, 2):
            refused(KEY, NAME, b"".join((header, *(pieces[number] for number in order))))
    for short in ((0, 1), (0, 2), (1, 2), (2,), (0,), ()):
        refused(KEY, NAME, b"".join((header, *(pieces[number] for number in short))))


def test_files_that_change_places_do_not_open() -> None:
    one, other = KEY.seal("subject-1", b"one"), KEY.seal("subject-2", b"two")
    refused(KEY, "subject-2", one)
    refused(KEY, "subject-1", other)
    refused(KEY, "subject-1", one[:HEADER_BYTES] + other[HEADER_BYTES:])
    again = KEY.seal("subject-1", b"uno")  # another version of the same file, half of it
    refused(KEY, "subject-1", one[:HEADER_BYTES] + again[HEADER_BYTES:])


def test_another_key_does_not_open_and_the_message_says_what_to_do() -> None:
    message = refused(SealingKey(os.urandom(32)), NAME, KEY.seal(NAME, CONTENT))
    assert "sealed under another key" in message
    assert "Open it with the passphrase or key file" in message


def test_a_claimed_key_does_not_open_either() -> None:
    """The id in the header is made to fit: then the wrap does not."""
    foreign = bytearray(SealingKey(os.urandom(32)).seal(NAME, CONTENT))
    foreign[29:45] = bytes.fromhex(KEY.id)
    assert "header of this sealed file was changed" in refused(KEY, NAME, bytes(foreign))


@pytest.mark.parametrize("sealed", [b"", b"fpsealed", bytes(105), b"fpsealed\x02" + bytes(200), os.urandom(500)])
def test_what_is_no_sealed_file_is_said_to_be_none(sealed: bytes) -> None:
    assert "this is no sealed file" in (said := refused(KEY, NAME, sealed)) or "format version 2" in said


@pytest.mark.parametrize("name", ["", "n" * 1025, "\ud800"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="logical name"):
        KEY.seal(name, CONTENT)


# ---------------------------------------------------------------------------------------------- keys


def test_a_key_file_is_private_whatever_the_umask_and_loads_again(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = SealingKey.create(tmp_path / "vault.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "vault.key").stat().st_mode) == 0o600
    assert len((tmp_path / "vault.key").read_bytes()) == 32
    assert SealingKey.load(tmp_path / "vault.key").open(NAME, made.seal(NAME, CONTENT)) == CONTENT


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    SealingKey.create(tmp_path / "vault.key")
    before = (tmp_path / "vault.key").read_bytes()
    with pytest.raises(RequestError, match=r"vault\.key exists already"):
        SealingKey.create(tmp_path / "vault.key")
    assert (tmp_path / "vault.key").read_bytes() == before


def test_no_half_key_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RequestError, match="No space left"):
        SealingKey.create(tmp_path / "vault.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    SealingKey.create(tmp_path / "vault.key")
    (tmp_path / "vault.key").chmod(mode)
    with pytest.raises(RequestError, match="by others than its owner"):
        SealingKey.load(tmp_path / "vault.key")


def test_a_key_file_under_a_passphrase_opens_with_that_alone(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    made = SealingKey.create(path, PASSPHRASE, QUICK)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert wants_passphrase(path)
    assert SealingKey.load(path, PASSPHRASE).open(NAME, made.seal(NAME, CONTENT)) == CONTENT
    with pytest.raises(RequestError, match="sealed under a passphrase"):
        SealingKey.load(path)
    with pytest.raises(SealError, match="another key"):
        SealingKey.load(path, "another battery horse")
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(SealError):
        SealingKey.load(path, PASSPHRASE)
    with pytest.raises(RequestError, match="too short"):
        SealingKey.create(tmp_path / "other.key", "short")
    assert [entry.name for entry in tmp_path.iterdir()] == ["vault.key"]
    SealingKey.create(tmp_path / "plain.key")
    assert not wants_passphrase(tmp_path / "plain.key")


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), MAGIC])
def test_what_is_no_key_file_stays_none_with_a_passphrase(tmp_path: Path, content: bytes) -> None:
    write_durably(tmp_path / "vault.key", [content])
    with pytest.raises((RequestError, SealError)):
        SealingKey.load(tmp_path / "vault.key", PASSPHRASE)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33)])
def test_a_file_of_another_length_is_no_key(tmp_path: Path, content: bytes) -> None:
    write_durably(tmp_path / "vault.key", [content])
    with pytest.raises(RequestError, match="is not 32 bytes long"):
        SealingKey.load(tmp_path / "vault.key")
    with pytest.raises(RequestError, match="32 bytes"):
        SealingKey(content)


def test_messages_never_name_the_folder(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "vault.key"
    for attempt in (SealingKey.create, SealingKey.load):
        with pytest.raises(RequestError, match=r"vault\.key could not be") as caught:
            attempt(absent)
        assert str(tmp_path) not in str(caught.value)


def test_a_passphrase_opens_what_it_sealed_and_no_other_does() -> None:
    sealed = SealingKey.from_passphrase(PASSPHRASE, QUICK).seal(NAME, CONTENT)
    assert SealingKey.unlock(PASSPHRASE, NAME, sealed).open(NAME, sealed) == CONTENT
    assert SealingKey.unlock(PASSPHRASE, NAME, sealed[:HEADER_BYTES]).open(NAME, sealed) == CONTENT
    for wrong in ("correct horse batterz", "", "Correct horse battery", "correct horse battery "):
        with pytest.raises(SealError, match="sealed under another key"):
            SealingKey.unlock(wrong, NAME, sealed)
    with pytest.raises(SealError, match="not sealed under a passphrase"):
        SealingKey.unlock(PASSPHRASE, NAME, KEY.seal(NAME, CONTENT))


def test_the_same_passphrase_makes_another_key_each_time() -> None:
    assert len({SealingKey.from_passphrase(PASSPHRASE, QUICK).id for _ in range(4)}) == 4


def test_a_passphrase_is_the_same_however_its_letters_are_composed() -> None:
    """An e with an acute accent is one character or two, depending on the keyboard."""
    sealed = SealingKey.from_passphrase("caf\u00e9 correct horse", QUICK).seal(NAME, CONTENT)
    assert SealingKey.unlock("cafe\u0301 correct horse", NAME, sealed).open(NAME, sealed) == CONTENT


@pytest.mark.parametrize("passphrase", ["", "fourteen chars", "e\u0301" * 14])
def test_a_passphrase_that_can_be_guessed_is_refused(passphrase: str) -> None:
    with pytest.raises(RequestError, match="at least 15 characters") as caught:
        SealingKey.from_passphrase(passphrase, QUICK)
    assert not passphrase or passphrase not in str(caught.value)


def test_a_planted_header_makes_no_key() -> None:
    """An attacker's file with an easy cost and a salt of his: the passphrase never makes a key of it that is handed out."""
    planted = bytearray(KEY.seal(NAME, CONTENT))
    planted[9:13] = bytes([1, 1, 1, 1])
    with pytest.raises(SealError, match="another key"):
        SealingKey.unlock(PASSPHRASE, NAME, bytes(planted))


@pytest.mark.parametrize("cost", [(0, 8, 1), (21, 8, 1), (17, 0, 1), (17, 8, 0), (17, 8, 17), (20, 9, 1), (16, 1, 1)])
def test_a_cost_beyond_reason_is_refused_also_from_a_header(cost: tuple[int, int, int]) -> None:
    with pytest.raises(RequestError, match="is not taken"):
        Cost(*cost)
    sealed = bytearray(SealingKey.from_passphrase(PASSPHRASE, QUICK).seal(NAME, CONTENT))
    sealed[10:13] = bytes(cost)
    with pytest.raises(SealError, match="beyond reason"):
        SealingKey.unlock(PASSPHRASE, NAME, bytes(sealed))


def test_secrets_do_not_show_and_do_not_travel() -> None:
    for held in (KEY, [KEY], SealingKey.from_passphrase(PASSPHRASE, QUICK)):
        for text in (repr(held), str(held)):
            assert SECRET.hex() not in text
            assert str(SECRET) not in text
            assert PASSPHRASE not in text
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            attempt(KEY)
