"""The key ring: a key that was destroyed opens nothing any more, whatever was killed or came in between."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fedprivseg.core.errors import RequestError
from fedprivseg.core.files import overwrite
from fedprivseg.crypto import keyring as module
from fedprivseg.crypto.keyring import KeyRing
from fedprivseg.crypto.passphrase import Cost
from fedprivseg.crypto.sealed_files import HEADER_BYTES, SealError, SealingKey

SECRET = bytes(range(32))  # fixed, for tests only
KEY = SealingKey(SECRET)
QUICK = Cost(log2_n=4, r=2, p=1)
PASSPHRASE = "correct horse battery"
NAME = "codec-3"
CONTENT = b"the encoder of a centre"


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keys.ring", KEY)


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def refused(key: SealingKey, sealed: bytes) -> None:
    with pytest.raises(SealError):
        key.open(NAME, sealed)


def test_secrets_do_not_show_and_do_not_travel(ring: KeyRing) -> None:
    for text in (repr(ring), str(ring), repr([ring])):
        assert SECRET.hex() not in text
        assert str(SECRET) not in text
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(ring)


def test_a_key_of_the_ring_seals_and_its_destruction_ends_it(ring: KeyRing) -> None:
    key, other = ring.add("subject-1"), ring.add("subject-2")
    sealed, copied = key.seal(NAME, CONTENT), other.seal(NAME, CONTENT)
    assert KeyRing(ring.path, KEY).key("subject-1").open(NAME, sealed) == CONTENT
    assert ring.destroy("subject-1") == key.id
    assert ring.names == KeyRing(ring.path, KEY).names == ("subject-2",)
    assert dict(ring.destroyed) == {"subject-1": key.id}
    with pytest.raises(SealError, match="was destroyed"):
        ring.key("subject-1")
    refused(KEY, sealed)
    refused(ring.key("subject-2"), sealed)
    assert ring.key("subject-2").open(NAME, copied) == CONTENT


def test_a_name_never_means_two_keys(ring: KeyRing) -> None:
    ring.add("subject-1")
    for _ in range(2):
        with pytest.raises(RequestError, match="is or was in the ring"):
            ring.add("subject-1")
        if "subject-1" in ring.names:
            ring.destroy("subject-1")
    with pytest.raises(SealError, match="was destroyed"):
        ring.destroy("subject-1")
    with pytest.raises(SealError, match="holds 0") as caught:
        ring.destroy("subject-7")
    assert "subject-7" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a" * 65, "a b", "é"])
def test_a_key_has_a_plain_name(ring: KeyRing, name: str) -> None:
    with pytest.raises(RequestError, match="no name for a key"):
        ring.add(name)
    assert ring.names == ()


def test_the_ring_is_sealed_under_a_passphrase_that_can_change(tmp_path: Path) -> None:
    path = tmp_path / "keys.ring"
    ring = KeyRing.create(path, SealingKey.from_passphrase(PASSPHRASE, QUICK))
    sealed = ring.add("subject-1").seal(NAME, CONTENT)
    before = path.read_bytes()
    assert KeyRing.unlock(path, PASSPHRASE).key("subject-1").open(NAME, sealed) == CONTENT
    changed = ring.rekey(SealingKey.from_passphrase("another battery horse", QUICK))
    assert changed.key("subject-1").open(NAME, sealed) == CONTENT
    with pytest.raises(SealError, match="another key"):
        KeyRing.unlock(path, PASSPHRASE)
    assert KeyRing.unlock(path, "another battery horse").names == ("subject-1",)
    # Sealed anew, not only wrapped anew: the old header does not open the new content.
    with pytest.raises(SealError, match="piece 1"):
        SealingKey.unlock(PASSPHRASE, "fedprivseg keyring 1", before).open(
            "fedprivseg keyring 1", before[:HEADER_BYTES] + path.read_bytes()[HEADER_BYTES:]
        )


def test_any_changed_byte_of_the_ring_is_noticed(ring: KeyRing) -> None:
    ring.add("subject-1")
    whole = ring.path.read_bytes()
    for place, byte in enumerate(whole):
        ring.path.write_bytes(whole[:place] + bytes([byte ^ 1]) + whole[place + 1 :])
        with pytest.raises(SealError):
            _ = ring.names
    ring.path.write_bytes(whole)
    assert ring.names == ("subject-1",)


def test_a_ring_is_never_overwritten(ring: KeyRing) -> None:
    ring.add("subject-1")
    with pytest.raises(SealError, match="exists already"):
        KeyRing.create(ring.path, KEY)
    assert ring.names == ("subject-1",)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("change", [lambda ring: ring.destroy("subject-1"), lambda ring: ring.add("subject-2")])
def test_a_change_that_fails_leaves_the_ring_as_it_was(
    ring: KeyRing, monkeypatch: pytest.MonkeyPatch, call: str, change: Callable[[KeyRing], object]
) -> None:
    ring.add("subject-1")
    before = ring.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(SealError, match="No space left"):
            change(ring)
    assert ring.path.read_bytes() == before
    assert [path.name for path in ring.path.parent.iterdir()] == ["keys.ring"]
    change(ring)


def test_the_old_file_of_the_ring_is_overwritten_also_under_another_name(ring: KeyRing) -> None:
    """A hard link keeps the old file: after a key is destroyed its bytes are no ring any more."""
    ring.add("subject-1")
    kept = ring.path.with_name("kept")
    os.link(ring.path, kept)
    size = kept.stat().st_size
    ring.destroy("subject-1")
    assert kept.stat().st_size == size
    with pytest.raises(SealError, match="no sealed file"):
        KeyRing(kept, KEY)


def test_what_a_killed_writer_left_is_gone_after_the_next_change(ring: KeyRing) -> None:
    """Killed between the draft and its last step: the draft would have kept a key that is destroyed later."""
    program = (
        "import os, sys; from pathlib import Path; from fedprivseg.crypto.keyring import *\n"
        "from fedprivseg.crypto.sealed_files import SealingKey\n"
        "os.replace = lambda *names: os._exit(9)\n"
        "KeyRing(Path(sys.argv[1]), SealingKey(bytes(range(32)))).add('subject-1')"
    )
    assert subprocess.run([sys.executable, "-c", program, str(ring.path)], check=False).returncode == 9
    (draft,) = (path for path in ring.path.parent.iterdir() if path != ring.path)
    assert "subject-1" in KEY.open("fedprivseg keyring 1", draft.read_bytes()).decode()
    assert ring.names == ()
    ring.add("subject-2")
    assert [path.name for path in ring.path.parent.iterdir()] == ["keys.ring"]


def test_writers_at_once_lose_no_key(ring: KeyRing) -> None:
    def add(number: int) -> None:
        for count in range(5):
            KeyRing(ring.path, KEY).add(f"subject-{number}-{count}")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ring.names) == 20


def test_a_reader_never_sees_the_old_file_while_it_is_overwritten(
    ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader comes at the worst moment, and waits."""
    ring.add("subject-1")
    seen: list[tuple[str, ...]] = []
    reader = threading.Thread(target=lambda: seen.append(ring.names))

    def interrupted(descriptor: int) -> None:
        overwrite(descriptor)
        reader.start()
        reader.join(0.1)
        assert reader.is_alive()

    monkeypatch.setattr(module, "overwrite", interrupted)
    ring.destroy("subject-1")
    reader.join(10)
    assert seen == [()]
