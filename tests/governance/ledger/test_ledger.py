"""The ledger: every change, removal and re-ordering shows, and a kill at any moment does not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedprivseg.core.errors import LedgerError
from fedprivseg.crypto.identity import SiteKey, canonical
from fedprivseg.governance.ledger import ledger as module
from fedprivseg.governance.ledger.checkpoints import Checkpoint
from fedprivseg.governance.ledger.format import EVENTS
from fedprivseg.governance.ledger.ledger import Ledger, Total, read, summary, verify
from fedprivseg.governance.ledger.line import ZEROS

SITE = "centre1"


@pytest.fixture
def key(tmp_path: Path) -> SiteKey:
    return SiteKey.create(tmp_path / "site.pem")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def facts(number: int) -> dict[str, module.Fact]:
    return {
        "digest": hashlib.sha256(str(number).encode()).hexdigest(),
        "kind": "image-code",
        "shapes": ["codes float16 (8, 128, 8, 8)"],
        "bytes": 1000 + number,
        "purpose": "train",
        "history": ["encode", "float16"],
    }


def write(path: Path, key: SiteKey, lines: int) -> None:
    """A ledger of `lines` lines: the key line and releases."""
    ledger = Ledger(path, key, SITE)
    for number in range(1, lines):
        ledger.append("release", facts(number))


def checkpoint_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def fault(path: Path, public_hex: str | None) -> str:
    """The message with which `verify` refuses; fails if it does not."""
    with pytest.raises(LedgerError) as caught:
        verify(path, public_hex=public_hex)
    return str(caught.value)


def named(message: str) -> int:
    """The place, from 1, of the line that a message names first; it names it by its index."""
    found = re.match(r"line (\d+) of", message)
    assert found, message
    return int(found[1]) + 1


def resigned(raw: bytes, key: SiteKey, **changes: object) -> bytes:
    """The line in `raw` with fields changed and signed again by `key`: what the holder of a key can do."""
    fields = json.loads(raw) | changes
    fields.pop("signature")
    return canonical({**fields, "signature": key.sign(canonical(fields)).hex()}) + b"\n"


# ---------------------------------------------------------------------------------------------- what is written


def test_what_a_line_holds(path: Path, key: SiteKey) -> None:
    """Oracle: chain and signatures checked here with the libraries alone, from the format's description."""
    write(path, key, 4)
    previous = "0" * 64
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_hex))
    for index, raw in enumerate(path.read_bytes().splitlines()):
        fields = json.loads(raw)
        assert sorted(fields) == ["event", "facts", "format", "index", "previous", "signature", "site", "time"]
        assert (fields["index"], fields["site"], fields["previous"]) == (index, SITE, previous)
        assert datetime.fromisoformat(fields["time"]).utcoffset() == timedelta(0)
        signature = bytes.fromhex(fields.pop("signature"))
        public.verify(signature, json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
        previous = hashlib.sha256(raw).hexdigest()
    verified = verify(path, public_hex=key.public_hex)
    assert (verified.lines, verified.head, verified.public_hex, verified.notes) == (4, previous, key.public_hex, ())


def test_the_first_line_carries_the_key(path: Path, key: SiteKey) -> None:
    Ledger(path, key, SITE)
    (line,) = read(path)
    assert (line.event, line.facts["public_key"], line.previous) == ("key", key.public_hex, ZEROS)
    assert verify(path).public_hex == key.public_hex


def test_append_returns_the_line_that_is_read_back(path: Path, key: SiteKey) -> None:
    ledger = Ledger(path, key, SITE)
    written = [ledger.append("open", {}), ledger.append("release", facts(1)), ledger.append("close", {"lines": 3})]
    assert read(path)[1:] == written
    assert dict(written[1].facts) == facts(1)


def test_a_ledger_goes_on_where_it_ended(path: Path, key: SiteKey) -> None:
    for number in range(1, 5):
        Ledger(path, key, SITE).append("release", facts(number))
    assert [line.index for line in read(path)] == [0, 1, 2, 3, 4]
    assert verify(path, public_hex=key.public_hex).notes == ()


def test_text_of_any_script_survives(path: Path, key: SiteKey) -> None:
    text = "核磁 é \u2028 \x00 \ud800 \n"
    Ledger(path, key, SITE).append("error", {"reason": text, "nested": [[1, 2], ["a"]]})
    assert read(path)[1].facts["reason"] == text
    assert verify(path).lines == 2


def test_summary_counts_lines_and_bytes(path: Path, key: SiteKey) -> None:
    """Releases 1 to 3 hold 1001 + 1002 + 1003 = 3006 bytes; one refusal of 7 bytes that could not be read."""
    write(path, key, 4)
    Ledger(path, key, SITE).append("refusal", {"bytes": 7, "rule": "payload.malformed"})
    assert summary(path) == {
        ("key", "", ""): Total(1, 0),
        ("refusal", "", ""): Total(1, 7),
        ("release", "image-code", "train"): Total(3, 3006),
    }


@pytest.mark.parametrize("event", ["leak", "key", "recovery", ""])
def test_only_the_events_of_a_site_can_be_appended(path: Path, key: SiteKey, event: str) -> None:
    ledger = Ledger(path, key, SITE)
    with pytest.raises(
        LedgerError,
        match="allowed: access, archive, backup, close, destruction, enrolment, error, open, receipt, refusal, release, "
        "storage, withdrawal",
    ):
        ledger.append(event, {})
    assert len(read(path)) == 1
    assert {"key", "recovery"} < set(EVENTS)


@pytest.mark.parametrize("value", [1.5, None, b"x", {"a": 1}, ("a",), ["a", 2.5]])
def test_only_text_numbers_and_lists_are_facts(path: Path, key: SiteKey, value: object) -> None:
    ledger = Ledger(path, key, SITE)
    with pytest.raises(LedgerError, match="not so: dose"):
        ledger.append("release", {"dose": value})  # type: ignore[dict-item]
    ledger.append("close", {})  # a refused fact does not break the ledger
    assert verify(path).lines == 2


# ---------------------------------------------------------------------------------------------- tampering


def test_any_changed_byte_shows_and_names_its_line(path: Path, key: SiteKey) -> None:
    """Letters change their case, the rest its lowest bit: a signature in A-F reads as the same bytes as one in a-f."""
    ledger = Ledger(path, key, SITE)
    for event in ("open", "release", "refusal", "error", "close"):
        ledger.append(event, {"bytes": 7})
    whole = path.read_bytes()
    for position, byte in enumerate(whole):
        line = whole.count(b"\n", 0, position) + 1
        changed = bytearray(whole)
        changed[position] ^= 0x20 if chr(byte).isalpha() else 0x01
        path.write_bytes(changed)
        assert named(fault(path, key.public_hex)) == line, position
    path.write_bytes(whole)
    assert verify(path, public_hex=key.public_hex).lines == 6


def test_a_changed_first_line_shows_also_without_a_known_key(path: Path, key: SiteKey) -> None:
    write(path, key, 2)
    whole = path.read_bytes()
    for position in range(whole.index(b"\n")):
        changed = bytearray(whole)
        changed[position] ^= 0x01
        path.write_bytes(changed)
        assert named(fault(path, None)) == 1


@pytest.mark.parametrize("mask", [0x01, 0x20])
def test_any_changed_byte_of_the_checkpoint_shows(path: Path, key: SiteKey, mask: int) -> None:
    write(path, key, 3)
    whole = checkpoint_of(path).read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= mask
        checkpoint_of(path).write_bytes(changed)
        assert "the checkpoint ledger.jsonl.head was changed" in fault(path, key.public_hex)


TAMPERINGS = {
    # What is done to the six lines at number n, from 1; how many lines later it shows; and what is said.
    "removed": (lambda lines, n: lines[: n - 1] + lines[n:], 0, "removed|missing"),
    "exchanged": (lambda lines, n: [*lines[: n - 1], *lines[n - 1 : n + 1][::-1], *lines[n + 1 :]], 0, "re-ordered"),
    "doubled": (lambda lines, n: lines[:n] + lines[n - 1 :], 1, ""),
    "cut off": (lambda lines, n: lines[: n - 1], 0, "is missing: the checkpoint counts 6 lines"),
}


@pytest.mark.parametrize(  # the last line has no neighbour
    ("how", "number"), [(how, number) for how in TAMPERINGS for number in range(1, 6 if how == "exchanged" else 7)]
)
def test_lines_removed_exchanged_doubled_or_cut_off_show(path: Path, key: SiteKey, how: str, number: int) -> None:
    edit, later, said = TAMPERINGS[how]
    write(path, key, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(edit(lines, number)))
    message = fault(path, key.public_hex)
    assert named(message) == number + later
    assert re.search(said, message)


def test_a_cut_within_any_line_shows(path: Path, key: SiteKey) -> None:
    write(path, key, 4)
    whole = path.read_bytes()
    for size in range(1, len(whole), 7):
        path.write_bytes(whole[:size])
        assert named(fault(path, key.public_hex)) == whole.count(b"\n", 0, size) + 1


@pytest.mark.parametrize("line", range(2, 6))
def test_a_line_written_again_with_the_right_key_shows(path: Path, key: SiteKey, line: int) -> None:
    """Its own signature fits, so the chain must catch it; the last one is caught by the checkpoint."""
    write(path, key, 5)
    lines = path.read_bytes().splitlines(keepends=True)
    for signer, changes, said in (
        (key, {"facts": {"bytes": 0}}, "written after other bytes"),
        (SiteKey.new(), {}, "signature"),
        (key, {"site": "centre2"}, "is foreign"),
    ):
        forged = [*lines[: line - 1], resigned(lines[line - 1], signer, **changes), *lines[line:]]
        path.write_bytes(b"".join(forged))
        message = fault(path, key.public_hex)
        assert named(message) == line
        assert said in message


def test_a_whole_ledger_of_a_foreign_key_shows_if_the_key_is_known(path: Path, key: SiteKey, tmp_path: Path) -> None:
    other = SiteKey.create(tmp_path / "other.pem")
    write(path, other, 3)
    message = fault(path, key.public_hex)
    assert named(message) == 1
    assert "foreign key" in message
    assert verify(path).public_hex == other.public_hex


def test_a_missing_checkpoint_shows(path: Path, key: SiteKey) -> None:
    write(path, key, 3)
    checkpoint_of(path).unlink()
    assert "lines removed at the end would not show" in fault(path, key.public_hex)
    with pytest.raises(LedgerError, match="would not show"):
        Ledger(path, key, SITE)


def test_a_checkpoint_put_back_by_more_than_one_line_shows(path: Path, key: SiteKey) -> None:
    write(path, key, 3)
    old = checkpoint_of(path).read_bytes()
    ledger = Ledger(path, key, SITE)
    ledger.append("release", facts(3))
    ledger.append("release", facts(4))
    checkpoint_of(path).write_bytes(old)
    message = fault(path, key.public_hex)
    assert named(message) == 4
    assert "at most one line can be ahead" in message


def test_a_checkpoint_of_another_site_shows(path: Path, key: SiteKey, tmp_path: Path) -> None:
    write(path, key, 1)
    other = tmp_path / "other.jsonl"
    Ledger(other, key, "centre2")
    fields = json.loads(checkpoint_of(path).read_bytes()) | {"site": "centre2"}
    fields.pop("signature")
    signed = canonical({**fields, "signature": key.sign(canonical(fields)).hex()}) + b"\n"
    checkpoint_of(path).write_bytes(signed)
    assert "is that of 'centre2'" in fault(path, key.public_hex)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"index":' + b"9" * 5000 + b"}", b"\xff"]
)
def test_bytes_that_are_no_ledger_are_refused(path: Path, key: SiteKey, content: bytes) -> None:
    write(path, key, 2)
    path.write_bytes(content + b"\n")
    assert named(fault(path, key.public_hex)) == 1
    with pytest.raises(LedgerError, match="line 0 of"):
        read(path)
    checkpoint_of(path).write_bytes(content + b"\n")
    with pytest.raises(LedgerError, match="was changed: it is no checkpoint"):
        Ledger(path, key, SITE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"bytes":', b'"bytes": '),
        (b'"site":"centre1"', b'"site":"\\u0063entre1"'),
        (b'"index":1', b'"index":9,"index":1'),
    ],
)
def test_another_spelling_of_a_line_is_no_line(path: Path, key: SiteKey, old: bytes, new: bytes) -> None:
    """Spaces, escapes and doubled keys parse to the same values; `read`, which checks no signature, sees it too."""
    write(path, key, 2)
    first, second = path.read_bytes().splitlines(keepends=True)
    assert json.loads(second.replace(old, new)) == json.loads(second)
    path.write_bytes(first + second.replace(old, new))
    for look in (verify, read):
        with pytest.raises(LedgerError, match=r"line 1 of .*not in canonical form"):
            look(path)


def test_an_absent_ledger_is_said_to_be_absent(path: Path) -> None:
    for look in (verify, read, summary):
        with pytest.raises(LedgerError, match=r"ledger\.jsonl could not be read \(No such file"):
            look(path)


# ---------------------------------------------------------------------------------------------- opening


def test_opening_refuses_what_is_not_ones_own(path: Path, key: SiteKey, tmp_path: Path) -> None:
    write(path, key, 2)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="foreign key"):
        Ledger(path, SiteKey.create(tmp_path / "other.pem"), SITE)
    with pytest.raises(LedgerError, match="ledger of 'centre1', not of 'centre2'"):
        Ledger(path, key, "centre2")
    assert path.read_bytes() == before


def test_opening_refuses_a_ledger_that_is_shortened_changed_or_gone(path: Path, key: SiteKey) -> None:
    write(path, key, 3)
    whole = path.read_bytes()
    for kept in range(3):
        path.write_bytes(b"".join(whole.splitlines(keepends=True)[:kept]))
        with pytest.raises(LedgerError, match=f"line {kept} of"):
            Ledger(path, key, SITE)
    path.write_bytes(whole.replace(b'"bytes":1002', b'"bytes":1003'))
    with pytest.raises(LedgerError, match="line 2 of"):
        Ledger(path, key, SITE)
    path.unlink()
    with pytest.raises(LedgerError, match="the file is gone, and its checkpoint counts 3 lines"):
        Ledger(path, key, SITE)
    assert not path.exists()


def test_opening_refuses_a_forged_line_ahead_of_the_checkpoint(path: Path, key: SiteKey, tmp_path: Path) -> None:
    write(path, key, 3)
    whole = path.read_bytes()
    last = whole.splitlines()[-1]
    previous = hashlib.sha256(last).hexdigest()
    path.write_bytes(whole + resigned(last, SiteKey.create(tmp_path / "other.pem"), index=3, previous=previous))
    with pytest.raises(LedgerError, match=r"line 3 of .* signature"):
        Ledger(path, key, SITE)
    path.write_bytes(whole + resigned(last, key, index=3, previous="1" * 64))
    with pytest.raises(LedgerError, match=r"line 2 of .* other bytes"):
        Ledger(path, key, SITE)


def test_a_second_writer_is_noticed(path: Path, key: SiteKey) -> None:
    one, two = Ledger(path, key, SITE), Ledger(path, key, SITE)
    one.append("release", facts(1))
    with pytest.raises(LedgerError, match="another process wrote it"):
        two.append("release", facts(2))
    assert verify(path).lines == 2


# ---------------------------------------------------------------------------------------------- killed in between


def test_a_line_ahead_of_the_checkpoint_is_a_note_and_opening_takes_it_up(path: Path, key: SiteKey) -> None:
    write(path, key, 3)
    old = checkpoint_of(path).read_bytes()
    Ledger(path, key, SITE).append("release", facts(3))
    checkpoint_of(path).write_bytes(old)
    verified = verify(path, public_hex=key.public_hex)
    assert verified.lines == 4
    assert [note[:42] for note in verified.notes] == ["line 3 is one ahead of the checkpoint: the"]
    Ledger(path, key, SITE).append("release", facts(4))
    assert (verify(path).lines, verify(path).notes) == (5, ())


def test_a_torn_line_is_a_note_and_opening_records_it(path: Path, key: SiteKey) -> None:
    write(path, key, 3)
    whole = path.read_bytes()
    torn = b'{"event":"release","facts":{"act'
    path.write_bytes(whole + torn)
    assert verify(path).notes[0].startswith(f"after line 2 stand {len(torn)} bytes without a newline")
    with pytest.raises(LedgerError, match=r"line 3 of .* is torn: it has no newline"):
        read(path)
    Ledger(path, key, SITE).append("release", facts(3))
    recovery = read(path)[3]
    assert recovery.event == "recovery"
    assert recovery.facts["sha256"] == hashlib.sha256(torn).hexdigest()
    assert recovery.facts["bytes"] == len(torn)
    assert (path.parent / str(recovery.facts["file"])).read_bytes() == torn
    assert path.read_bytes().startswith(whole)
    assert (verify(path).lines, verify(path).notes) == (5, ())


def test_a_torn_first_line_is_recorded_too(path: Path, key: SiteKey) -> None:
    Ledger(path, key, SITE)
    whole, head = path.read_bytes(), checkpoint_of(path)
    path.unlink()
    head.unlink()
    other = path.with_name("fresh.jsonl")
    fields = {"site": SITE, "lines": 0, "hash": ZEROS}
    checkpoint_of(other).write_bytes(canonical({**fields, "signature": key.sign(canonical(fields)).hex()}) + b"\n")
    other.write_bytes(whole[:40])
    Ledger(other, key, SITE)
    assert [line.event for line in read(other)] == ["key", "recovery"]
    assert verify(other).notes == ()


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def killing(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The process ends at the `after`-th call of the operating system that writes, half of a write being done."""
    calls = iter(range(10_000))
    write_line, rename, cut, pwrite = module._write_line, os.replace, os.truncate, os.pwrite

    def dying_write(path: Path, raw: bytes, *, expected: int, durable: bool = True) -> None:
        if next(calls) == after:
            with path.open("ab") as file:
                file.write(raw[: len(raw) // 2])
            raise Killed
        write_line(path, raw, expected=expected, durable=durable)

    def dying_checkpoint(descriptor: int, content: bytes, place: int) -> int:
        if next(calls) == after:
            raise Killed
        return pwrite(descriptor, content, place)

    def dying_rename(source: Path, target: Path) -> None:
        if next(calls) == after:
            raise Killed
        rename(source, target)

    def dying_cut(path: Path, size: int) -> None:
        if next(calls) == after:
            raise Killed
        cut(path, size)

    monkeypatch.setattr(module, "_write_line", dying_write)
    monkeypatch.setattr(os, "replace", dying_rename)
    monkeypatch.setattr(os, "pwrite", dying_checkpoint)
    monkeypatch.setattr(os, "truncate", dying_cut)


@pytest.mark.parametrize("grouped", [False, True])
def test_killed_at_any_two_moments_it_goes_on(
    tmp_path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    """Every pair of kill points: in a first session and, on what it left, in the session that repairs it.

    Whatever was acknowledged stands in the ledger afterwards, nothing torn is lost, and it verifies without a note.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a kill loses no page of the system's cache
    pairs = 0
    for first in range(12):
        for second in range(12):
            folder = tmp_path / f"{first}-{second}"
            folder.mkdir()
            path = folder / "ledger.jsonl"
            acknowledged: list[str] = []
            for after in (first, second):
                with monkeypatch.context() as patch:
                    killing(patch, after)
                    try:
                        ledger = Ledger(path, key, SITE, grouped=grouped)
                        for number in range(3):
                            acknowledged.append(ledger.append("release", facts(number)).hash)
                        ledger.commit()
                    except Killed:
                        pairs += 1
            ledger = Ledger(path, key, SITE)
            ledger.append("close", {})
            verified = verify(path, public_hex=key.public_hex)
            assert verified.notes == ()
            lines = read(path)
            assert set(acknowledged) <= {line.hash for line in lines}
            recorded = {str(line.facts["file"]): line.facts["sha256"] for line in lines if line.event == "recovery"}
            aside = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.torn-*")}
            assert {name: digest for name, digest in aside.items() if not name.endswith(".new")} == recorded
    assert pairs > (60 if grouped else 150)  # most of the 2 * 144 sessions were really cut short


def test_a_failed_write_stops_the_ledger_until_it_is_opened_again(
    path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path, key, SITE)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LedgerError, match=r"ledger\.jsonl could not be written \(No space left") as caught:
            ledger.append("release", facts(1))
    assert str(path.parent) not in str(caught.value)
    with pytest.raises(LedgerError, match="an earlier write"):
        ledger.append("release", facts(2))
    Ledger(path, key, SITE).append("release", facts(3))
    assert verify(path).notes == ()


def test_a_folder_that_is_not_there_is_said_without_its_name(tmp_path: Path, key: SiteKey) -> None:
    with pytest.raises(LedgerError, match="could not be opened") as caught:
        Ledger(tmp_path / "absent" / "ledger.jsonl", key, SITE)
    assert str(tmp_path) not in str(caught.value)


# ---------------------------------------------------------------------------------------------- lines that come together


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are brought to the disk from now on, in order."""
    found: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: found.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    return found


def test_a_line_is_on_the_disk_when_it_is_acknowledged(
    path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path, key, SITE)
    order = synced(monkeypatch)
    ledger.append("release", facts(1))
    assert order == [path.name, checkpoint_of(path).name]
    ledger.commit()
    assert len(order) == 2, "there is nothing left to commit"
    assert "grouped" not in read(path)[-1].facts


def test_lines_of_a_group_come_to_the_disk_before_their_checkpoint(
    path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path, key, SITE, grouped=True)
    ledger.commit()
    order, before = synced(monkeypatch), checkpoint_of(path).read_bytes()
    for number in range(3):
        ledger.append("release", facts(number))
    assert order == []
    assert checkpoint_of(path).read_bytes() == before
    verified = verify(path, public_hex=key.public_hex)
    assert [note[:45] for note in verified.notes] == ["lines 1 to 3 are ahead of the checkpoint: the"]
    ledger.commit()
    assert order == [path.name, checkpoint_of(path).name]
    assert verify(path, public_hex=key.public_hex).notes == ()
    assert [line.facts["grouped"] for line in read(path)] == [1] * 4


def test_what_a_power_cut_takes_from_a_group_is_missed_by_who_holds_its_checkpoint(path: Path, key: SiteKey) -> None:
    """Lines that were not on the disk are gone; what others hold of the ledger tells of them."""
    ledger = Ledger(path, key, SITE, grouped=True)
    ledger.commit()
    on_disk = path.read_bytes()
    ledger.append("release", facts(1))
    held = Checkpoint.read(ledger.checkpoint(), key.public_hex)
    path.write_bytes(on_disk)
    assert verify(path, public_hex=key.public_hex).lines < held.lines


def test_a_line_that_does_not_say_so_is_never_far_ahead(path: Path, key: SiteKey) -> None:
    """A checkpoint that was put back shows, whoever wrote before: only lines that say so themselves may be ahead."""
    Ledger(path, key, SITE).append("release", facts(1))
    old = checkpoint_of(path).read_bytes()
    Ledger(path, key, SITE).append("release", facts(2))
    ledger = Ledger(path, key, SITE, grouped=True)
    ledger.append("release", facts(3))
    checkpoint_of(path).write_bytes(old)
    assert "at most one line can be ahead" in fault(path, key.public_hex)
    with pytest.raises(LedgerError, match="at most one line can be ahead"):
        Ledger(path, key, SITE)


def test_a_changed_line_of_a_group_shows(path: Path, key: SiteKey) -> None:
    ledger = Ledger(path, key, SITE, grouped=True)
    ledger.commit()
    for number in range(3):
        ledger.append("release", facts(number))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"bytes":1001', b'"bytes":1007'))
    for look in (lambda: verify(path), lambda: Ledger(path, key, SITE)):
        with pytest.raises(LedgerError, match="line 2 of"):
            look()


# ---------------------------------------------------------------------------------------------- kept open


def _longer(path: Path, key: SiteKey) -> None:
    Ledger(path, key, SITE).append("close", {})


def _other_end(path: Path, key: SiteKey) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:-10] + b"0" * 9 + b"\n")


def _put_back(path: Path, key: SiteKey) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _other_checkpoint(path: Path, key: SiteKey) -> None:
    head = Checkpoint(SITE, 1, ZEROS).signed(key)
    checkpoint_of(path).write_text(head + "\n")


@pytest.mark.parametrize(
    "change",
    [
        _longer,
        _other_end,
        _put_back,
        _other_checkpoint,
        lambda path, key: path.unlink(),
        lambda path, key: checkpoint_of(path).unlink(),
    ],
)
def test_an_open_ledger_sees_whether_it_was_changed(path: Path, key: SiteKey, change) -> None:
    write(path, key, 2)
    ledger = Ledger(path, key, SITE)
    assert ledger.is_current
    ledger.append("release", facts(2))
    assert ledger.is_current
    change(path, key)
    assert not ledger.is_current


# ---------------------------------------------------------------------------------------------- size


def test_a_thousand_lines_verify(path: Path, key: SiteKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the disk is not what is tested here
    write(path, key, 1000)
    assert verify(path, public_hex=key.public_hex).lines == 1000
    lines = path.read_bytes().splitlines(keepends=True)
    lines[749] = lines[749].replace(b'"bytes":1749', b'"bytes":1748')
    path.write_bytes(b"".join(lines))
    assert named(fault(path, key.public_hex)) == 750


def test_a_ledger_signs_with_the_given_key_only(path: Path) -> None:
    fixed = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
    Ledger(path, fixed, SITE)
    assert verify(path, public_hex=fixed.public_hex).lines == 1
