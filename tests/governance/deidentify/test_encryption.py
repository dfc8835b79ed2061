"""Symmetric encryption."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.encryption import LARGEST, NONCE_BYTES, TAG_BYTES, CipherKey, Encryption
from fedprivseg.governance.policy.technique_table import Cipher

KEYS = {
    Cipher.AES_256_GCM: CipherKey(Cipher.AES_256_GCM, bytes(range(32))),
    Cipher.SM4_GCM: CipherKey(Cipher.SM4_GCM, bytes(range(16))),
}
BOTH = pytest.mark.parametrize("cipher", Cipher)


# ---------------------------------------------------------------------------------------------- symmetric


@BOTH
@given(body=st.binary(max_size=200), associated=st.binary(max_size=20))
@settings(max_examples=50, deadline=None)
def test_what_is_encrypted_comes_back(cipher: Cipher, body: bytes, associated: bytes) -> None:
    operation = Encryption(KEYS[cipher])
    hidden = operation.apply(body, associated).value
    head = f"fedprivseg cipher 1 {cipher}\n".encode()
    assert hidden.startswith(head)
    assert len(hidden) == len(head) + NONCE_BYTES + len(body) + TAG_BYTES
    assert len(body) < 4 or body not in hidden
    assert operation.undo(hidden, associated) == body


@BOTH
def test_any_flipped_bit_of_any_byte_is_noticed(cipher: Cipher) -> None:
    operation = Encryption(KEYS[cipher])
    hidden = operation.apply(b"patient 7", b"centre1").value
    for place in range(len(hidden)):
        for bit in range(8):
            changed = bytearray(hidden)
            changed[place] ^= 1 << bit
            with pytest.raises(RequestError):
                operation.undo(bytes(changed), b"centre1")


@BOTH
@given(body=st.binary(min_size=1, max_size=60), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_cut_addition_or_exchange_of_bytes_is_noticed(cipher: Cipher, body: bytes, data: st.DataObject) -> None:
    operation = Encryption(KEYS[cipher])
    hidden = operation.apply(body, b"").value
    start = data.draw(st.integers(0, len(hidden)))
    end = data.draw(st.integers(start, len(hidden)))
    changed = hidden[:start] + data.draw(st.binary(max_size=8)) + hidden[end:]
    if changed != hidden:
        with pytest.raises(RequestError):
            operation.undo(changed, b"")


@BOTH
def test_another_key_or_other_associated_data_opens_nothing_and_the_error_does_not_say_which(cipher: Cipher) -> None:
    hidden = Encryption(KEYS[cipher]).apply(b"patient 7", b"centre1").value
    said = set()
    for key, associated in ((CipherKey.create(cipher), b"centre1"), (KEYS[cipher], b"centre2"), (KEYS[cipher], b"")):
        with pytest.raises(RequestError) as caught:
            Encryption(key).undo(hidden, associated)
        said.add(str(caught.value))
    assert len(said) == 1
    assert "patient" not in said.pop()


def test_a_message_of_one_cipher_is_not_opened_by_the_other() -> None:
    hidden = Encryption(KEYS[Cipher.AES_256_GCM]).apply(b"patient 7", b"").value
    with pytest.raises(RequestError, match="SM4-GCM made.*exist here: AES-256-GCM, SM4-GCM"):
        Encryption(KEYS[Cipher.SM4_GCM]).undo(hidden, b"")


def test_the_head_and_the_associated_data_are_kept_apart_by_the_head_s_line_end() -> None:
    operation = Encryption(KEYS[Cipher.AES_256_GCM])
    hidden = operation.apply(b"patient 7", b"\nab").value
    for other in (b"ab", b"\n\nab", b"\na"):
        with pytest.raises(RequestError):
            operation.undo(hidden, other)


@BOTH
def test_a_nonce_is_never_the_same_twice(cipher: Cipher) -> None:
    operation = Encryption(KEYS[cipher])
    head = len(f"fedprivseg cipher 1 {cipher}\n")
    nonces = {operation.apply(b"", b"").value[head : head + NONCE_BYTES] for _ in range(500)}
    assert len(nonces) == 500  # of 2**96, so that a collision has a chance below 2**-78


# Both vectors are published ones; the nonce, which the product draws, is put in through the reader's side.
VECTORS = {
    # McGrew and Viega, The Galois/Counter Mode of Operation, test case 16 (AES-256, with associated data).
    Cipher.AES_256_GCM: (
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
    ),
    # RFC 8998, appendix A.1 (SM4-GCM).
    Cipher.SM4_GCM: (
        "0123456789abcdeffedcba9876543210",
        "00001234567800000000abcd",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccddddddddddddddddeeeeeeeeeeeeeeeeffffffffffffffffeeeeeeeeeeeeeeeeaaaaaaaaaaaaaaaa",
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d",
    ),
}


@BOTH
def test_the_keystream_is_that_of_published_vectors(cipher: Cipher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tags differ from those published, because the head is authenticated too; the ciphertext is the published one."""
    key, nonce, associated, plain, expected = (bytes.fromhex(part) for part in VECTORS[cipher])
    monkeypatch.setattr("fedprivseg.governance.deidentify.encryption.os.urandom", lambda size: nonce[:size])
    hidden = Encryption(CipherKey(cipher, key)).apply(plain, associated).value
    assert hidden[-TAG_BYTES - len(expected) : -TAG_BYTES] == expected


@BOTH
def test_created_keys_have_the_cipher_s_length_and_differ(cipher: Cipher) -> None:
    first, second = CipherKey.create(cipher), CipherKey.create(cipher.lower())
    assert len(first.material) == {"AES-256-GCM": 32, "SM4-GCM": 16}[cipher]
    assert first != second
    assert first.name is second.name is cipher


@pytest.mark.parametrize(("name", "size"), [("AES-256-GCM", 16), ("AES-256-GCM", 31), ("SM4-GCM", 32), ("SM4-GCM", 0)])
def test_a_key_of_another_length_is_refused(name: str, size: int) -> None:
    with pytest.raises(RequestError, match=f"a key of {name} is exactly"):
        CipherKey(Cipher(name), bytes(size))


def test_a_key_for_sm1_is_refused_because_it_is_not_published() -> None:
    for make in (lambda: CipherKey.create("SM1"), lambda: CipherKey("SM1", bytes(16))):  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="SM1.*not published.*AES-256-GCM and SM4-GCM"):
            make()


def test_a_message_that_is_too_long_is_refused() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return LARGEST + 1

    with pytest.raises(RequestError, match="the most is 2147483647"):
        Encryption(KEYS[Cipher.AES_256_GCM]).apply(Long(), b"")


@BOTH
def test_the_history_names_the_cipher_and_nothing_of_key_or_message(cipher: Cipher) -> None:
    assert Encryption(KEYS[cipher]).apply(b"patient 7", b"x").history == f"symmetric encryption: {cipher}, keyed"
