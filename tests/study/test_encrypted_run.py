"""Runs whose sites encrypt what leaves: the same numbers bit for bit, the same files at the server, and domains that bind."""

from __future__ import annotations

import json

import pytest
from conftest import BRIEF, ROOT, tiny_settings

from fedprivseg.crypto.hpke import OVERHEAD, EncryptionKey, key_id
from fedprivseg.governance.ledger import ledger
from fedprivseg.runtime.site import client_app as site_app
from fedprivseg.study.run import load_scenario, simulate

SITES = ("centre1", "centre2", "centre3")
COARSE = [f"method.parameters.{each}" for each in ("image_steps=1", "mask_steps=1", "mapping_steps=1")]
CLOSED = 'policy.restrict.all={profile="open-research", encrypt_from=1}'


def run(phantom, folder, *settings: str, name: str = "open"):
    path = ROOT / "simulations" / f"policy-{name}.toml"
    scenario = load_scenario(path, [*tiny_settings(phantom), *BRIEF, *COARSE, *settings])
    return simulate(scenario, folder)


def lines(folder, site: str, event: str = "release"):
    return [line.facts for line in ledger.read(folder / "sites" / site / "ledger.jsonl") if line.event == event]


@pytest.fixture(scope="module")
def plain(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    return folder, run(phantom, folder)


def test_an_encrypted_run_ends_with_the_same_bits_and_nothing_open_on_the_wire(phantom, plain, tmp_path, monkeypatch):
    wire: list[bytes] = []
    write = site_app.write_reply

    def tapped(reply):
        wire.append(reply.body)
        return write(reply)

    monkeypatch.setattr(site_app, "write_reply", tapped)
    folder, (open_folder, open_result) = tmp_path / "run", plain
    result = run(phantom, folder, CLOSED)
    assert result.mean_dice == open_result.mean_dice
    assert [row.dice for row in result.metrics] == [row.dice for row in open_result.metrics]
    stored = sorted(path.relative_to(folder) for path in folder.glob("server/codes/**/*.safetensors"))
    assert len(stored) >= len(SITES) * 2
    for path in [*stored, *(f"server/metrics/{site}.safetensors" for site in SITES)]:
        assert (folder / path).read_bytes() == (open_folder / path).read_bytes(), path
        assert not any((folder / path).read_bytes()[-200:] in body for body in wire), path
    opener = EncryptionKey.load(folder / "server/encryption.pem")
    receipts = [line.facts for line in ledger.read(folder / "server/ledger.jsonl") if line.event == "receipt"]
    for site in SITES:
        sent, sent_open = lines(folder, site), lines(open_folder, site)
        assert {facts["encrypted_to"] for facts in sent} == {key_id(opener.public_hex)}
        assert [facts["digest"] for facts in sent] == [facts["digest"] for facts in sent_open]
        assert not any("encrypted_to" in facts for facts in sent_open)
        assert [a["bytes"] - b["bytes"] for a, b in zip(sent, sent_open, strict=True)] == [OVERHEAD] * len(sent)
        got = {(facts["digest"], facts["sealed"]) for facts in receipts if facts["site"] == site}
        assert got == {(facts["digest"], facts["sealed"]) for facts in sent}
        account, account_open = result.sites[site], open_result.sites[site]
        asked = len([facts for facts in sent if facts["action"] != "describe"])
        assert account.bytes_up - account_open.bytes_up == OVERHEAD * asked


@pytest.mark.parametrize("harm", ["another identity", "unsigned"])
def test_a_server_whose_key_does_not_fit_gets_nothing_from_those_who_encrypt(harm, phantom, tmp_path, monkeypatch):
    from fedprivseg.runtime.server import federation as module

    class Wrong(module.KeyCertificate):
        def text(self) -> str:
            fields = json.loads(super().text())
            if harm == "another identity":
                return json.dumps({**fields, "server_key": "11" * 32})
            return json.dumps({**fields, "signature": "00" * 64})

    monkeypatch.setattr(module, "KeyCertificate", Wrong)
    result = run(phantom, tmp_path / "run", 'policy.restrict.centre1={profile="open-research", encrypt_from=3}')
    # Counts are of level 2: they may still leave open. The codes, of level 3, may not leave at all.
    assert "(transport.key)" in result.sites["centre1"].status
    assert {result.sites[site].status for site in ("centre2", "centre3")} == {"ok"}
    assert {facts["kind"] for facts in lines(tmp_path / "run", "centre1")} == {"status"}
    assert not list((tmp_path / "run/server/codes").glob("centre1/*/*"))


def test_a_resumed_run_opens_with_the_key_of_the_first_attempt(phantom, plain, tmp_path):
    folder = tmp_path / "run"
    run(phantom, folder, CLOSED)
    before = (folder / "server/encryption.pem").read_bytes()
    (folder / "result.json").unlink()
    again = run(phantom, folder, CLOSED)
    assert (folder / "server/encryption.pem").read_bytes() == before
    assert again.mean_dice == plain[1].mean_dice
