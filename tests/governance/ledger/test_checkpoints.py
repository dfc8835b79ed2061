"""Checkpoints that others hold: neither side can rewrite its ledger without contradicting the other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedprivseg.core.errors import LedgerError
from fedprivseg.crypto.identity import SiteKey, canonical
from fedprivseg.governance.ledger.checkpoints import Checkpoint, equivocations
from fedprivseg.governance.ledger.ledger import Ledger, read, verify

SITE, SERVER = (SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2))  # for tests only


def exchange(folder: Path, rounds: int, site_event: str = "release") -> tuple[Path, Path]:
    """Ledgers of a site and a server that sent each other their checkpoints so many times."""
    folder.mkdir(exist_ok=True)
    site, server = Ledger(folder / "site.jsonl", SITE, "centre1"), Ledger(folder / "server.jsonl", SERVER, "server")
    for number in range(rounds):
        shown = Checkpoint.read(server.checkpoint(), SERVER.public_hex)
        site.append(site_event, {"number": number, "server_checkpoint": shown.as_fact()})
        head = Checkpoint.read(site.checkpoint(), SITE.public_hex)
        server.append("receipt", {"site": "centre1", "number": number, "checkpoint": head.as_fact()})
    return site.path, server.path


def held(site: Path, server: Path) -> tuple[str, ...]:
    return equivocations(read(server), {"centre1": read(site)})


@pytest.mark.parametrize(
    "changes",
    [{"lines": -1}, {"lines": 2**60}, {"lines": 1.0}, {"hash": "x" * 64}, {"hash": "a" * 65}, {"hash": 7}, {"more": 1}],
    ids=str,
)
def test_a_checkpoint_that_is_none_is_refused_whoever_signed_it(changes: dict[str, object]) -> None:
    head = {"site": "centre1", "lines": 3, "hash": "a" * 64}
    assert Checkpoint.read(_signed(head), SITE.public_hex).lines == 3
    with pytest.raises(LedgerError, match="is no checkpoint"):
        Checkpoint.read(_signed({**head, **changes}), SITE.public_hex)


def _signed(head: dict[str, object]) -> str:
    return canonical({**head, "signature": SITE.sign(canonical(head)).hex()}).decode()


def test_honest_ledgers_do_not_contradict_each_other(tmp_path: Path) -> None:
    assert held(*exchange(tmp_path / "a", 4)) == ()


def test_a_server_that_sends_two_sites_two_models_contradicts_itself(tmp_path: Path) -> None:
    ledgers = {name: Ledger(tmp_path / f"{name}.jsonl", SITE, name) for name in ("centre1", "centre2", "centre3")}
    for number, models in enumerate([("a", "a", "a"), ("b", "b", "c"), ("d", "d", "d")], start=1):
        for ledger, model in zip(ledgers.values(), models, strict=True):
            ledger.append("release", {"run": "r", "action": "train", "number": number, "model": model * 64})
    ledgers["centre1"].append("release", {"run": "r", "action": "measure", "number": 2})
    sites = {name: read(ledger.path) for name, ledger in ledgers.items()}
    (found,) = equivocations((), sites)
    assert "'train' 2 the server sent centre1 and centre3 different models" in found
    assert equivocations((), {name: sites[name] for name in ("centre1", "centre2")}) == ()


def test_a_site_that_rewrites_its_ledger_with_its_own_key_is_contradicted(tmp_path: Path) -> None:
    _, server = exchange(tmp_path / "a", 4)
    forged, _ = exchange(tmp_path / "b", 4, site_event="refusal")
    verify(forged, public_hex=SITE.public_hex)  # by itself it holds
    found = held(forged, server)
    assert "is not the one of the checkpoint in line 1 of the server's ledger" in found[0]


def test_a_server_that_rewrites_its_ledger_is_contradicted(tmp_path: Path) -> None:
    site, _ = exchange(tmp_path / "a", 4)
    _, forged = exchange(tmp_path / "b", 4, site_event="refusal")
    verify(forged, public_hex=SERVER.public_hex)
    assert any(
        "line 2 of the ledger of server" in each or "line 1 of the ledger of server" in each
        for each in held(site, forged)
    )


def test_a_ledger_that_is_gone_is_contradicted_by_who_holds_its_checkpoint(tmp_path: Path) -> None:
    _, server = exchange(tmp_path / "a", 2)
    assert equivocations(read(server), {}) == (
        "the ledger of centre1 is gone; line 2 of the server's ledger holds a checkpoint of 3 lines",
    )


def test_a_ledger_that_was_put_back_is_contradicted(tmp_path: Path) -> None:
    site, server = exchange(tmp_path / "a", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "old")
    exchange(tmp_path / "a", 2)
    assert held(site, server) == ()
    found = held(tmp_path / "old/site.jsonl", server)
    assert found == (
        "the ledger of centre1 has 3 lines; line 3 of the server's ledger holds a checkpoint of 4",
        "the ledger of centre1 has 3 lines; line 4 of the server's ledger holds a checkpoint of 5",
    )


@pytest.mark.parametrize("position", range(0, 200, 7))
def test_a_checkpoint_with_a_changed_byte_is_none(position: int, tmp_path: Path) -> None:
    _, server = exchange(tmp_path / "a", 1)
    raw = bytearray(Ledger(server, SERVER, "server").checkpoint().encode())
    raw[position % len(raw)] ^= 1
    with pytest.raises(LedgerError):
        Checkpoint.read(raw.decode("latin-1"), SERVER.public_hex)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"site": 1, "lines": 2, "hash": "a", "signature": "00"}'])
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LedgerError, match="is no checkpoint"):
        Checkpoint.read(text, None)


def test_a_checkpoint_of_another_key_is_refused(tmp_path: Path) -> None:
    _, server = exchange(tmp_path / "a", 1)
    text = Ledger(server, SERVER, "server").checkpoint()
    assert Checkpoint.read(text, None).site == "server"
    with pytest.raises(LedgerError, match="foreign key"):
        Checkpoint.read(text, SITE.public_hex)
    assert json.loads(text)["lines"] == 2
