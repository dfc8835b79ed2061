"""The key pair of a site, and the statement it signs."""

from __future__ import annotations

import itertools
import os
import pickle
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from fedprivseg.core.errors import RequestError
from fedprivseg.crypto.identity import SiteKey, canonical, statement, verify

# RFC 8032, section 7.1, TEST 2: secret key, public key, the one-byte message 0x72, its signature.
RFC_SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
RFC_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_known_answer_of_rfc_8032() -> None:
    key = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_SECRET)))
    assert key.public_hex == RFC_PUBLIC
    assert key.sign(b"\x72").hex() == RFC_SIGNATURE
    assert verify(RFC_PUBLIC, b"\x72", bytes.fromhex(RFC_SIGNATURE))
    assert not verify(RFC_PUBLIC, b"\x73", bytes.fromhex(RFC_SIGNATURE))


def test_a_created_key_is_the_key_that_loads(tmp_path: Path) -> None:
    made = SiteKey.create(tmp_path / "site.pem")
    loaded = SiteKey.load(tmp_path / "site.pem")
    assert loaded.public_hex == made.public_hex
    assert verify(made.public_hex, b"codes", loaded.sign(b"codes"))


def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        SiteKey.create(tmp_path / "site.pem")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "site.pem").stat().st_mode) == 0o600
    assert (tmp_path / "site.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")  # PKCS8


def test_keys_are_random(tmp_path: Path) -> None:
    publics = {SiteKey.create(tmp_path / f"{number}.pem").public_hex for number in range(8)}
    assert len(publics) == 8


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    SiteKey.create(tmp_path / "site.pem")
    before = (tmp_path / "site.pem").read_bytes()
    with pytest.raises(RequestError, match=r"site\.pem exists already"):
        SiteKey.create(tmp_path / "site.pem")
    assert (tmp_path / "site.pem").read_bytes() == before


def test_no_half_key_stays_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RequestError, match="No space left"):
        SiteKey.create(tmp_path / "site.pem")
    assert list(tmp_path.iterdir()) == []


def test_create_and_load_say_what_is_wrong_without_the_folder(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "site.pem"
    for attempt in (SiteKey.create, SiteKey.load):
        with pytest.raises(RequestError, match=r"site\.pem could not be") as caught:
            attempt(absent)
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "site.pem").write_bytes(content)
    with pytest.raises(RequestError, match="holds no Ed25519 private key"):
        SiteKey.load(tmp_path / "site.pem")


def test_a_key_of_another_sort_is_refused(tmp_path: Path) -> None:
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "site.pem").write_bytes(other)
    with pytest.raises(RequestError, match="holds no Ed25519 private key"):
        SiteKey.load(tmp_path / "site.pem")


def test_the_secret_does_not_show_and_does_not_travel(tmp_path: Path) -> None:
    key = SiteKey.create(tmp_path / "site.pem")
    private = load_pem_private_key((tmp_path / "site.pem").read_bytes(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    secret = private.private_bytes_raw()
    for text in (repr(key), str(key), f"{key}", repr([key])):
        assert secret.hex() not in text
        assert key.fingerprint in text
    with pytest.raises(TypeError):
        pickle.dumps(key)


@settings(max_examples=50, deadline=None)
@given(
    body=st.binary(max_size=64),
    public=st.one_of(st.just(RFC_PUBLIC), st.text(max_size=70), st.binary(max_size=34).map(bytes.hex)),
    signature=st.binary(max_size=70),
)
def test_verify_only_ever_says_true_or_false(body: bytes, public: str, signature: bytes) -> None:
    assert verify(public, body, signature) is False


def test_canonical_json_is_one_text() -> None:
    assert canonical({"b": [1, "é"], "a": "x"}) == b'{"a":"x","b":[1,"\\u00e9"]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical({"a": float("nan")})


def test_a_statement_is_bound_to_run_site_action_number_and_body() -> None:
    """Each field takes two values; all 2^5 statements differ, and a signature fits its own statement only."""
    key = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(RFC_SECRET)))
    choices = [("run1", "run2"), ("centre1", "centre2"), ("fit", "encode"), (1, 11), ("a" * 64, "b" * 64)]
    statements = [statement(*values) for values in itertools.product(*choices)]  # type: ignore[arg-type]
    assert len(set(statements)) == 32
    signature = key.sign(statements[0])
    assert [verify(key.public_hex, text, signature) for text in statements] == [True] + [False] * 31


def test_no_two_field_values_run_together() -> None:
    assert statement("r", "s", 'a","number":1', 2, "d") != statement("r", "s", "a", 1, "d")
    assert statement("rs", "", "a", 1, "d") != statement("r", "s", "a", 1, "d")


def test_the_public_half_is_a_plain_ed25519_key(tmp_path: Path) -> None:
    """Oracle: what we sign verifies with the library alone, as an auditor would do it."""
    key = SiteKey.create(tmp_path / "site.pem")
    text = statement("run", "centre1", "encode", 3, "0" * 64)
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_hex)).verify(key.sign(text), text)
