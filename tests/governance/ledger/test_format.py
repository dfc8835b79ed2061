"""Ledgers of format 1: they verify as they were written, are read in today's words, and go on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedprivseg.core.errors import LedgerError
from fedprivseg.crypto.identity import SiteKey, canonical
from fedprivseg.governance.ledger.checkpoints import Checkpoint, equivocations
from fedprivseg.governance.ledger.format import OLD_ACTIONS, OLD_EVENTS, OLD_FACTS, OLD_RULES
from fedprivseg.governance.ledger.ledger import Ledger, read, verify
from fedprivseg.governance.ledger.line import ZEROS, digest_of

SITE, SERVER = (SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))  # for tests only

# What format 1 wrote, and what is read of it.
LINES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = [
    (
        ("intake", {"refused": ["consent.range: 2", "consent.sharing: 1"], "train": ["s-1"]}),
        ("enrolment", {"refused": ["consent.data-type: 2", "consent.sharing: 1"], "train": ["s-1"]}),
    ),
    (
        ("refusal", {"rule": "consent.lapsed", "server_head": [1, ZEROS], "reason": "Consent lapsed."}),
        ("refusal", {"rule": "consent.no-longer-valid", "server_checkpoint": [1, ZEROS], "reason": "Consent lapsed."}),
    ),
    (
        ("release", {"action": "glance", "sealed": "ab", "strategy": ["low, high: unadvised", "x: open"]}),
        ("release", {"action": "validate", "encrypted_digest": "ab", "technique_advice": ["low, high: not recommended",
                                                                                        "x: open"]}),
    ),
    (("receipt", {"head": [3, ZEROS], "rule": "metric.size"}), ("receipt", {"checkpoint": [3, ZEROS], "rule": "metric.size"})),
]  # fmt: skip


def write(
    path: Path, lines: list[tuple[str, dict[str, Any]]], key: SiteKey = SITE, site: str = "centre1", **more: Any
) -> Path:
    """A ledger of format 1, written here from the description of the format."""
    previous, written = ZEROS, b""
    for index, (event, facts) in enumerate(
        [("key", {"format": "fedprivseg ledger 1", "public_key": key.public_hex}), *lines]
    ):
        fields = {
            "event": event,
            "facts": facts,
            "index": index,
            "previous": previous,
            "site": site,
            "time": "2026-11-29T20:00:00+00:00",
            **more,
        }
        raw = canonical({**fields, "signature": key.sign(canonical(fields)).hex()})
        previous, written = digest_of(raw), written + raw + b"\n"
    path.write_bytes(written)
    path.with_name(f"{path.name}.head").write_text(Checkpoint(site, len(lines) + 1, previous).signed(key) + "\n")
    return path  # fmt: skip


def test_a_ledger_of_format_1_verifies_and_is_read_in_todays_words(tmp_path: Path) -> None:
    path = write(tmp_path / "ledger.jsonl", [old for old, _ in LINES])
    before = path.read_bytes()
    assert verify(path, public_hex=SITE.public_hex).lines == 5
    assert [(line.event, dict(line.facts)) for line in read(path)[1:]] == [new for _, new in LINES]
    assert path.read_bytes() == before


def test_a_ledger_that_was_begun_in_format_1_goes_on(tmp_path: Path) -> None:
    """After a change of versions in the middle of a run: the new lines state their format, and everything verifies."""
    path = write(tmp_path / "ledger.jsonl", [old for old, _ in LINES])
    added = Ledger(path, SITE, "centre1").append("refusal", {"rule": "retention.expired"})
    assert verify(path, public_hex=SITE.public_hex).lines == 6
    assert read(path)[-1] == added
    assert [json.loads(raw).get("format", 1) for raw in path.read_bytes().splitlines()] == [1, 1, 1, 1, 1, 2]
    whole = path.read_bytes()
    for line, word in ((b"consent.lapsed", b"consent.Lapsed"), (b'"format":2,', b"")):
        path.write_bytes(whole.replace(line, word))
        with pytest.raises(LedgerError, match="was changed"):
            verify(path)


def test_words_of_format_1_in_a_line_of_format_2_are_just_words(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", SITE, "centre1")
    assert dict(ledger.append("refusal", {"rule": "consent.lapsed", "head": 1}).facts) == {
        "rule": "consent.lapsed",
        "head": 1,
    }


@pytest.mark.parametrize("format", [0, 1, 3, "2", True])
def test_a_line_of_an_unknown_format_is_not_read(format: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "ledger.jsonl", [], format=format)
    with pytest.raises(LedgerError, match="this release does not read; it reads 1 to 2"):
        read(path)
    with pytest.raises(LedgerError, match="this release does not read"):
        verify(path)


def test_checkpoints_that_were_exchanged_in_format_1_still_show_an_equivocation(tmp_path: Path) -> None:
    site = write(tmp_path / "site.jsonl", [("release", {"number": 0})])
    held = [2, read(site)[-1].hash]
    server = write(tmp_path / "server.jsonl", [("receipt", {"site": "centre1", "head": held})], SERVER, "server")
    assert equivocations(read(server), {"centre1": read(site)}) == ()
    forged = write(tmp_path / "forged.jsonl", [("release", {"number": 1})])
    assert len(equivocations(read(server), {"centre1": read(forged)})) == 1


def test_each_old_word_has_one_new_one_and_no_module_knows_it() -> None:
    for table in (OLD_ACTIONS, OLD_EVENTS, OLD_FACTS, OLD_RULES):
        assert len({*table.values()}) == len(table)
        assert not set(table) & {*table.values()}
    for path in sorted((ROOT / "fedprivseg").rglob("*.py")):
        if path.name != "format.py":
            known = set(re.findall(r"[\"'`]([a-z-]+\.[a-z-]+)[\"'`]", path.read_text())) & set(OLD_RULES)
            assert not known, f"{path.name} knows {known}"
