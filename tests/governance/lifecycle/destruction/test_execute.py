"""Destruction: nothing without approval, a certificate only when nothing is left, and a kill in between loses neither."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.core.lock import locked
from fedprivseg.crypto.identity import SiteKey, verify
from fedprivseg.crypto.key_store import KeyFile
from fedprivseg.crypto.sealed_files import SealError, SealingKey
from fedprivseg.governance.lifecycle.archive import archive
from fedprivseg.governance.lifecycle.destruction import execute as module
from fedprivseg.governance.lifecycle.destruction.certificate import CLAUSES, Certificate, DestructionError
from fedprivseg.governance.lifecycle.destruction.execute import Means, destroy
from fedprivseg.governance.lifecycle.destruction.medium import judge_medium
from fedprivseg.governance.lifecycle.destruction.order import RULES, Copy, Method, Order, requirement
from fedprivseg.governance.policy.levels import DataClass

SITE = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))  # fixed, for tests only
OTHER = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
NOW = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
LATER = datetime(2026, 6, 2, 9, 0, tzinfo=UTC)
CONTENT = b"PATIENT-MARK" * 500


@dataclass(frozen=True)
class Keys:
    """The key files of a site, one a subject."""

    files: tuple[KeyFile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for file in self.files for name in file.names)

    def key(self, name: str) -> SealingKey:
        (found,) = [file.key(name) for file in self.files if file.name == name]
        return found


@dataclass(frozen=True)
class Site:
    """A site with two files that are encrypted under its key, and an approved order to destroy them."""

    folder: Path
    key: SealingKey
    means: Means
    order: Order

    @property
    def files(self) -> list[Path]:
        return [copy.path for copy in self.order.copies]

    def untouched(self) -> bool:
        """Whether everything can still be read."""
        opened = [self.key.open(copy.name, copy.path.read_bytes()) for copy in self.order.copies]
        return opened == [CONTENT] * len(opened) and self.holds_key

    @property
    def holds_key(self) -> bool:
        path = self.folder / "sealing.key"
        return path.exists() and SealingKey.load(path).id == self.key.id


@pytest.fixture
def site(tmp_path: Path) -> Site:
    key = SealingKey.create(tmp_path / "sealing.key")
    for name in ("vault", "backup", "records"):
        (tmp_path / name).mkdir()
    copies = []
    for number, folder in enumerate(("vault", "backup"), start=1):
        path = tmp_path / folder / f"PATIENT-{number}.sealed"
        path.write_bytes(key.seal(f"image-{number}", CONTENT))
        copies.append(Copy(path=path, name=f"image-{number}"))
    order = Order(
        id="withdrawal-12",
        object="all images of pseudonym s-1",
        data_class=DataClass.STRUCTURAL,
        level=3,
        method=Method.ERASE,
        copies=tuple(copies),
        keys=("vault",),
        derived=("mapping-net of run 7",),
        reason="consent was withdrawn",
        requested_by="data manager",
    ).approve("privacy board", date(2026, 5, 30))
    means = Means(
        site="centre1",
        key=SITE,
        records=tmp_path / "records",
        approvers=frozenset({"privacy board", "director"}),
        key_file=KeyFile(tmp_path / "sealing.key", "vault"),
        delete_shards=lambda shards: shards,
        search=lambda digests: (),
    )
    return Site(tmp_path, key, means, order)


def plain(site: Site, method: Method, **change: Any) -> tuple[Order, Means]:
    """The order for the same files as if they had never been encrypted: no keys."""
    copies = tuple(Copy(path=path) for path in site.files)
    said = {"method": method, "keys": (), "copies": copies, "level": 1} | change
    return Order.model_validate(site.order.model_dump() | said), replace(site.means, key_file=None)


def full(*arguments: object, **words: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def records(site: Site) -> list[str]:
    return sorted(path.name for path in site.means.records.iterdir())


# ---------------------------------------------------------------------------------------------- what is destroyed


def test_cryptographic_erase_makes_every_copy_unreadable_and_is_certified(site: Site) -> None:
    before = [path.read_bytes() for path in site.files]
    with (site.folder / "sealing.key").open("rb") as held:
        key = held.read()
        certificate = destroy(site.order, site.means, NOW)
        held.seek(0)
        assert held.read() != key  # overwritten before it was removed
    assert not any(path.exists() for path in (*site.files, site.folder / "sealing.key"))
    assert certificate.verify(SITE.public_hex)
    assert not certificate.verify(OTHER.public_hex)
    assert verify(SITE.public_hex, certificate.signed_bytes(), bytes.fromhex(certificate.signature))
    assert [(item.what, item.number, item.id, item.size) for item in certificate.items] == [
        ("key", 1, site.key.id, 0),
        *(("file", number, hashlib.sha256(body).hexdigest(), len(body)) for number, body in enumerate(before, 1)),
    ]
    assert (certificate.order, certificate.object, certificate.reason) == (
        site.order.digest,
        "all images of pseudonym s-1",
        "consent was withdrawn",
    )
    assert (certificate.method, certificate.level, certificate.data_class) == (Method.ERASE, 3, DataClass.STRUCTURAL)
    assert "Levels 3 and 4" in certificate.required
    assert certificate.clauses == CLAUSES == ("5.8-a", "5.8-b", "5.8-c", "5.8-d", "5.8-e", "5.8-f")
    assert (certificate.requested_by, certificate.approved_by, certificate.approved_on) == (
        "data manager",
        "privacy board",
        date(2026, 5, 30),
    )
    assert (certificate.site, certificate.began, certificate.ended) == ("centre1", NOW, NOW)
    assert certificate.checks == (
        "2 of 2 paths lead to nothing.",
        "The key's file is gone, looked for again.",
        "2 copies were encrypted under that key alone.",
        "No file within reach of the site and of the server holds, byte for byte, what was destroyed.",
    )
    assert certificate.items[0].medium
    assert certificate.derived == ("mapping-net of run 7",)
    assert "Copies of the key other than the site's key file were not looked at." in certificate.limits
    assert any("1 models made of the data stay" in limit for limit in certificate.limits)


def test_the_certificate_stands_in_the_records_and_names_no_file(site: Site) -> None:
    certificate = destroy(site.order, site.means, NOW)
    assert records(site) == ["withdrawal-12.begun.json", "withdrawal-12.certificate.json"]
    written = [(site.means.records / name).read_text(encoding="ascii") for name in records(site)]
    assert Certificate.from_json(written[1]) == certificate
    for text in written:
        assert "PATIENT" not in text
        assert str(site.folder) not in text


def test_the_destruction_of_a_key_alone_is_enough_for_an_order(site: Site) -> None:
    certificate = destroy(site.order.model_copy(update={"copies": ()}), site.means, NOW)
    assert [item.what for item in certificate.items] == ["key"]
    assert not site.holds_key


def test_an_archive_is_a_sealed_file_like_any_other(site: Site) -> None:
    path = site.folder / "backup" / "s-1.archive"
    words = {
        "data_class": DataClass.STRUCTURAL,
        "level": 3,
        "keep_until": date(2030, 1, 1),
        "made": NOW,
        "made_by": "x",
    }
    archive({"a": site.files[0]}, path, site.key, name="s-1", **words)  # type: ignore[arg-type]
    copy = Copy(path=path, name="fedprivseg archive 1: s-1")
    destroy(site.order.model_copy(update={"copies": (*site.order.copies, copy)}), site.means, NOW)
    assert not path.exists()


@pytest.mark.parametrize(("method", "survives"), [(Method.OVERWRITING, False), (Method.DELETION, True)])
def test_overwriting_reaches_the_content_and_deletion_only_the_name(site: Site, method: Method, survives: bool) -> None:
    """Whoever holds the file open sees what its blocks hold."""
    site.files[0].write_bytes(CONTENT)
    with site.files[0].open("rb") as held:
        certificate = destroy(*plain(site, method), NOW)
        content = held.read()
    assert (content == CONTENT) == (b"PATIENT" in content) == survives
    assert len(content) == len(CONTENT)
    assert [path.exists() for path in site.files] == [False, False]
    assert any("the content stays on the medium" in limit for limit in certificate.limits) == survives
    assert site.holds_key


def test_the_certificate_says_where_overwriting_proves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    flash = judge_medium("1 2 8:1 / / rw - ext4 /dev/sda1 rw", "8:1", "0")
    monkeypatch.setattr(module, "medium_of", lambda path: flash)
    certificate = destroy(*plain(site, Method.OVERWRITING), NOW)
    assert [item.medium for item in certificate.items] == ["the medium is flash memory: overwriting proves nothing"] * 2
    assert any("For 2 of 2 files overwriting proves nothing" in limit for limit in certificate.limits)


def test_two_names_of_one_file_go_together(site: Site) -> None:
    link = site.folder / "vault" / "link"
    os.link(site.files[0], link)
    copies = (*site.order.copies, Copy(path=link, name="image-1"))
    destroy(site.order.model_copy(update={"copies": copies}), site.means, NOW)
    assert not link.exists()


def test_a_list_of_subjects_and_copies_out_of_reach(site: Site) -> None:
    listed = site.folder / "cohort.json"
    listed.write_text("PATIENT-1, PATIENT-2")
    copies = (*site.order.copies, Copy(path=listed, form="list"))
    order = site.order.model_copy(update={"copies": copies, "elsewhere": ("the backup of line 7",)})
    certificate = destroy(order, site.means, NOW)
    assert not listed.exists()
    assert certificate.checks[2] == "2 copies were encrypted under that key alone."
    assert "Out of reach of this order: the backup of line 7" in certificate.limits


def test_a_key_file_that_was_overwritten_and_not_removed_is_no_key_and_is_removed_later(site: Site) -> None:
    """As a kill between the two leaves it."""
    encrypted = site.files[0].read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", full)
        with pytest.raises(DestructionError, match="key 1 of 1"):
            destroy(site.order, site.means, NOW)
    assert not SealingKey.load(site.folder / "sealing.key").opens("image-1", encrypted)
    assert destroy(site.order, site.means, LATER).verify(SITE.public_hex)
    assert not (site.folder / "sealing.key").exists()


def test_a_file_that_was_never_encrypted_asks_for_its_medium_under_any_method(site: Site) -> None:
    loose = site.folder / "vault" / "loose"
    loose.write_bytes(CONTENT)
    order = site.order.model_copy(update={"copies": (*site.order.copies, Copy(path=loose, form="plain"))})
    with pytest.raises(RequestError, match=r"order\.method"):
        destroy(order, site.means, NOW)
    assert loose.read_bytes() == CONTENT
    destroy(order.model_copy(update={"media": "shredded, ticket 12"}), site.means, NOW)
    assert not loose.exists()


# ---------------------------------------------------------------------------------------------- what is refused

REFUSED: dict[str, tuple[str, Callable[[Site], tuple[Order, Means]]]] = {
    "nobody approved": ("order.unapproved", lambda site: (site.order.approve("", NOW.date()), site.means)),
    "approved without a day": (
        "order.unapproved",
        lambda site: (site.order.model_copy(update={"approved_on": None}), site.means),
    ),
    "approved for tomorrow": (
        "order.unapproved",
        lambda site: (site.order.approve("director", LATER.date()), site.means),
    ),
    "approved by who requested it": (
        "order.approver",
        lambda site: (
            site.order.approve("data manager", NOW.date()),
            replace(site.means, approvers=frozenset({"data manager"})),
        ),
    ),
    "the same person in other letters": (
        "order.approver",
        lambda site: (
            site.order.approve(" Data  MANAGER", NOW.date()),
            replace(site.means, approvers=frozenset({" Data  MANAGER"})),
        ),
    ),
    "approved by somebody": ("order.approver", lambda site: (site.order.approve("janitor", NOW.date()), site.means)),
    "nobody may approve": ("order.approver", lambda site: (site.order, replace(site.means, approvers=frozenset()))),
    "nothing": ("order.nothing", lambda site: (site.order.model_copy(update={"copies": (), "keys": ()}), site.means)),
    "the same file twice": (
        "order.nothing",
        lambda site: (site.order.model_copy(update={"copies": (site.order.copies[0],) * 2}), site.means),
    ),
    "deletion at level 2": ("order.method", lambda site: plain(site, Method.DELETION, level=2)),
    "overwriting at level 3, medium kept": (
        "order.method",
        lambda site: plain(site, Method.OVERWRITING, level=3),
    ),
    "erase at level 5, medium kept": (
        "order.method",
        lambda site: (site.order.model_copy(update={"level": 5}), site.means),
    ),
    "a face as if it were public": (
        "order.method",
        lambda site: plain(site, Method.DELETION, data_class=DataClass.BIOMETRIC),
    ),
    "erase without a key": ("order.keys", lambda site: (site.order.model_copy(update={"keys": ()}), site.means)),
    "keys for overwriting": ("order.keys", lambda site: plain(site, Method.OVERWRITING, keys=("vault",))),
}


@pytest.mark.parametrize(("rule", "make"), REFUSED.values(), ids=REFUSED)
def test_a_refused_order_destroys_nothing_and_leaves_no_record(
    site: Site, rule: str, make: Callable[[Site], tuple[Order, Means]]
) -> None:
    order, means = make(site)
    with pytest.raises(RequestError, match="Nothing was destroyed") as caught:
        destroy(order, means, NOW)
    assert rule in str(caught.value)
    assert "clause 5.8-" in str(caught.value)
    assert site.untouched()
    assert records(site) == []


def test_an_order_that_was_changed_past_its_checks_destroys_nothing(site: Site) -> None:
    for change in ({"id": "../vault/x"}, {"level": 9}, {"reason": ""}):
        with pytest.raises(RequestError, match="the order is none \\(1 faults\\). Nothing was destroyed"):
            destroy(site.order.model_copy(update=change), site.means, NOW)
    with pytest.raises(RequestError, match="time zone"):
        destroy(site.order, site.means, NOW.replace(tzinfo=None))
    assert site.untouched()


def test_a_text_in_place_of_the_approvers_approves_nothing(site: Site) -> None:
    means = replace(site.means, approvers="the privacy board")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"order\.approver"):
        destroy(site.order, means, NOW)


def test_every_rule_is_tried_above() -> None:
    ids = [rule for rule, _, _ in RULES]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {rule for rule, _ in REFUSED.values()}
    assert {clause for _, clause, _ in RULES} <= set(CLAUSES)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("data_class", DataClass)
def test_what_each_class_and_level_asks_for(data_class: DataClass, level: int) -> None:
    """Written out again: deletion for what is public, never at a level that can identify; a medium at level 5 in any case."""
    required = requirement(data_class, level)
    biometric = data_class == DataClass.BIOMETRIC
    assert (Method.DELETION in required.methods) == (level == 1 and not biometric)
    assert {Method.OVERWRITING, Method.ERASE} <= set(required.methods)
    assert (Method.OVERWRITING in required.media) == (level >= 3 or biometric)
    assert (Method.ERASE in required.media) == (level == 5)


def test_a_level_that_does_not_exist_has_no_method() -> None:
    for level in (0, 6):
        with pytest.raises(RequestError, match="levels are 1, 2, 3, 4, 5"):
            requirement(DataClass.STRUCTURAL, level)


def test_the_destruction_of_the_medium_is_named_and_not_claimed(site: Site) -> None:
    order = site.order.model_copy(update={"level": 5, "media": "shredded by the IT office in July, ticket 12"})
    certificate = destroy(order, site.means, NOW)
    assert (
        "The destruction of the medium is for people and was not checked: shredded by the IT office in July, ticket 12"
        in certificate.limits
    )


def link(site: Site) -> None:
    site.files[0].rename(site.folder / "moved")
    site.files[0].symlink_to(site.folder / "moved")


def folder(site: Site) -> None:
    site.files[0].unlink()
    site.files[0].mkdir()


def pipe(site: Site) -> None:
    site.files[0].unlink()
    os.mkfifo(site.files[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda site: site.files[1].unlink(), "file 2 of 2 could not be examined"),
        (link, "file 1 of 2 is a link"),
        (folder, "file 1 of 2 is a link, a folder or a device"),
        (pipe, "file 1 of 2 is a link, a folder or a device"),
        (lambda site: os.link(site.files[0], site.folder / "second"), "has 2 names on the disk, and the order lists 1"),
        (lambda site: site.files[0].write_bytes(CONTENT), "file 1 of 2 is not encrypted under the key of the order"),
        (lambda site: site.files[0].write_bytes(b""), "file 1 of 2 is not encrypted under the key of the order"),
        (
            lambda site: site.files[0].write_bytes(SealingKey(bytes(32)).seal("image-1", CONTENT)),
            "file 1 of 2 is not encrypted under the key of the order",
        ),
        (
            lambda site: site.files[0].write_bytes(site.key.seal("image-9", CONTENT)),
            "file 1 of 2 is not encrypted under the key of the order",
        ),
    ],
)
def test_what_is_not_as_the_order_says_stops_it_before_anything(
    site: Site, change: Callable[[Site], object], said: str
) -> None:
    change(site)
    with pytest.raises(RequestError, match=said) as caught:
        destroy(site.order, site.means, NOW)
    assert "Nothing was destroyed" in str(caught.value)
    assert "PATIENT" not in str(caught.value)
    assert site.holds_key
    assert sum(path.exists() for path in site.files) >= 1
    assert records(site) == []


def test_a_key_that_is_not_there_stops_it(site: Site) -> None:
    for means in (
        replace(site.means, key_file=None),
        replace(site.means, key_file=KeyFile(site.folder / "no", "vault")),
    ):
        with pytest.raises(RequestError, match="is not in the site's key file"):
            destroy(site.order, means, NOW)
    assert site.untouched()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"id": "../x"}, "pattern"), ({"id": ""}, "pattern"), ({"level": 6}, "level"), ({"reason": "old"}, "reason")],
)
def test_an_order_that_says_nothing_is_not_built(site: Site, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Order.model_validate(site.order.model_dump() | change)


# ---------------------------------------------------------------------------------------------- shards at the server


def with_server(site: Site, answer: Callable[[tuple[str, ...]], Collection[str]]) -> tuple[Order, Means]:
    return site.order.model_copy(update={"shards": ("a1", "b2")}), replace(site.means, delete_shards=answer)


def test_shards_are_deleted_by_the_server_on_its_word(site: Site) -> None:
    asked: list[tuple[str, ...]] = []
    order, means = with_server(site, lambda shards: asked.append(shards) or shards)  # type: ignore[func-returns-value]
    certificate = destroy(order, means, NOW)
    assert asked == [("a1", "b2")]
    assert [(item.what, item.id) for item in certificate.items[-2:]] == [("shard", "a1"), ("shard", "b2")]
    assert "The server says that it no longer has 2 of 2 shards." in certificate.checks
    assert any("its own word" in limit for limit in certificate.limits)


def unreachable(shards: tuple[str, ...]) -> Collection[str]:
    raise TimeoutError("patient 7 at 10.0.0.1")


@pytest.mark.parametrize(
    ("answer", "left", "why"),
    [
        (lambda shards: ("a1",), ("shard 2 of 2",), "the server still has it"),
        (lambda shards: (), ("shard 1 of 2", "shard 2 of 2"), "the server still has it"),
        (unreachable, ("shard 1 of 2", "shard 2 of 2"), "TimeoutError"),
        (lambda shards: None, ("shard 1 of 2", "shard 2 of 2"), "TypeError"),
    ],
)
def test_shards_that_stay_leave_no_certificate_until_they_are_gone(
    site: Site, answer: Callable[[tuple[str, ...]], Collection[str]], left: tuple[str, ...], why: str
) -> None:
    order, means = with_server(site, answer)
    with pytest.raises(DestructionError, match=why) as caught:
        destroy(order, means, NOW)
    assert caught.value.left == left
    assert "patient" not in str(caught.value)
    assert records(site) == ["withdrawal-12.begun.json"]
    assert not site.holds_key  # the rest of an approved order is done
    certificate = destroy(order, replace(means, delete_shards=lambda shards: shards), LATER)
    assert (certificate.began, certificate.ended) == (NOW, LATER)


# ---------------------------------------------------------------------------------------------- faults and kills


@pytest.mark.parametrize(
    ("target", "call", "left"),
    [
        (Path, "unlink", ("key 1 of 1", "file 1 of 2", "file 2 of 2")),
        (module, "overwrite", ("file 1 of 2", "file 2 of 2")),
        (module, "sync_folder", ("file 1 of 2", "file 2 of 2")),
    ],
)
def test_what_could_not_be_destroyed_is_said_and_taken_up_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, target: Any, call: str, left: tuple[str, ...]
) -> None:
    bodies = [path.read_bytes() for path in site.files]
    with monkeypatch.context() as patch:
        patch.setattr(target, call, full)
        with pytest.raises(DestructionError, match=r"file 1 of 2 \(No space left on device\)") as caught:
            destroy(site.order, site.means, NOW)
    assert caught.value.left == left
    assert "PATIENT" not in str(caught.value)
    assert records(site) == ["withdrawal-12.begun.json"]
    assert not site.holds_key  # the key comes first: nothing is readable whatever is left
    certificate = destroy(site.order, site.means, LATER)
    assert [path.exists() for path in site.files] == [False, False]
    assert [item.id for item in certificate.items[1:]] == [hashlib.sha256(body).hexdigest() for body in bodies]
    assert certificate.checks[2] == "2 copies were encrypted under that key alone."


def test_a_key_file_that_cannot_be_written_stays_and_there_is_no_certificate(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(file: KeyFile, name: str) -> str:
        raise SealError("the key file could not be destroyed (Read-only file system).")

    with monkeypatch.context() as patch:
        patch.setattr(KeyFile, "destroy", unwritable)
        with pytest.raises(DestructionError, match="Read-only file system") as caught:
            destroy(site.order, site.means, NOW)
    # The files are gone, and what was sealed in them would still open, if there is another copy.
    assert caught.value.left == ("key 1 of 1", "what is encrypted as file 1 of 2", "what is encrypted as file 2 of 2")
    assert records(site) == ["withdrawal-12.begun.json"]
    assert destroy(site.order, site.means, LATER).verify(SITE.public_hex)


def test_the_check_does_not_believe_the_act(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a key file that only says that it was destroyed, nor a removal that removes nothing, is certified."""
    with monkeypatch.context() as patch:
        patch.setattr(KeyFile, "destroy", lambda file, name: "gone")
        patch.setattr(module, "_remove", lambda *arguments, **words: None)
        with pytest.raises(DestructionError) as caught:
            destroy(site.order, site.means, NOW)
    sealed = ("what is encrypted as file 1 of 2", "what is encrypted as file 2 of 2")
    assert caught.value.left == ("file 1 of 2", "file 2 of 2", "key 1 of 1", *sealed)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_if_the_record_cannot_be_written_nothing_is_destroyed(
    site: Site, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(RequestError, match="records folder cannot be used"):
            destroy(site.order, site.means, NOW)
    assert site.untouched()
    assert records(site) == []


def test_a_certificate_that_could_not_be_written_is_written_the_next_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module.write_durably

    def unlucky(path: Path, parts: Any) -> None:
        if "certificate" in path.name:
            full()
        write(path, parts)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_durably", unlucky)
        with pytest.raises(DestructionError, match="everything is destroyed, but the certificate could not") as caught:
            destroy(site.order, site.means, NOW)
    assert caught.value.left == ()
    certificate = destroy(site.order, site.means, LATER)
    assert certificate.verify(SITE.public_hex)
    assert (certificate.began, certificate.ended, len(certificate.items)) == (NOW, LATER, 3)


@pytest.mark.parametrize("moment", ["KeyFile.destroy", "module.overwrite", "module.sync_folder", "Path.unlink"])
def test_a_kill_at_any_step_is_taken_up_by_the_same_order(site: Site, moment: str) -> None:
    """The process dies at once. The order it was killed under goes on, and nothing that was sealed opens."""
    (site.folder / "order.json").write_text(site.order.model_dump_json(), encoding="utf-8")
    program = (
        "import os, sys; from datetime import *; from pathlib import Path\n"
        "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey\n"
        "from fedprivseg.governance.lifecycle.destruction import execute as module\n"
        "from fedprivseg.governance.lifecycle.destruction.order import Order\n"
        "from fedprivseg.crypto.identity import SiteKey; from fedprivseg.crypto.key_store import KeyFile\n"
        f"{moment} = lambda *names, **words: os._exit(9)\n"
        "home = Path(sys.argv[1]); file = KeyFile(home / 'sealing.key', 'vault')\n"
        "key = SiteKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))\n"
        "boards = frozenset({'privacy board'})\n"
        "means = module.Means('centre1', key, home / 'records', boards, file, lambda shards: shards, lambda found: ())\n"
        "order = Order.model_validate_json((home / 'order.json').read_text())\n"
        "module.destroy(order, means, datetime(2026, 6, 1, 9, 0, tzinfo=UTC))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(site.folder)], check=False).returncode == 9
    assert records(site) == ["withdrawal-12.begun.json"]
    certificate = destroy(site.order, site.means, LATER)
    assert certificate.verify(SITE.public_hex)
    assert (certificate.began, certificate.ended) == (NOW, LATER)
    assert [path.exists() for path in site.files] == [False, False]
    assert not site.holds_key


def test_a_file_that_came_in_between_is_not_destroyed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt stops before the files; then another file takes the place of one."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_remove", full)
        with pytest.raises(DestructionError):
            destroy(site.order, site.means, NOW)
    fresh = site.folder / "fresh"
    fresh.write_bytes(b"not ordered")
    os.replace(fresh, site.files[0])
    with pytest.raises(DestructionError, match="another file stands in the place") as caught:
        destroy(site.order, site.means, LATER)
    assert caught.value.left == ("file 1 of 2",)
    assert site.files[0].read_bytes() == b"not ordered"


def test_the_same_order_again_gives_the_same_certificate_and_destroys_nothing_more(site: Site) -> None:
    certificate = destroy(site.order, site.means, NOW)
    site.files[0].write_bytes(b"a new file of the same name")
    assert destroy(site.order, site.means, LATER) == certificate
    assert site.files[0].exists()


def test_the_certificate_counts_even_if_the_record_of_the_beginning_is_gone(site: Site) -> None:
    certificate = destroy(site.order, site.means, NOW)
    (site.means.records / "withdrawal-12.begun.json").unlink()
    assert destroy(site.order, site.means, LATER) == certificate


def test_an_id_stands_for_one_order(site: Site) -> None:
    other = site.order.model_copy(update={"reason": "the term has ended"})
    with pytest.raises(DestructionError):
        destroy(*with_server(site, lambda shards: ()), NOW)
    with pytest.raises(RequestError, match="another one that was begun"):
        destroy(other, site.means, NOW)
    destroy(*with_server(site, lambda shards: shards), NOW)
    with pytest.raises(RequestError, match="another one that was executed"):
        destroy(other, site.means, NOW)


def test_two_processes_never_execute_the_same_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_remove", full)
        with pytest.raises(DestructionError):
            destroy(site.order, site.means, NOW)
    with (
        locked(site.means.records / "withdrawal-12.begun.json"),
        pytest.raises(RequestError, match="another process is executing this order"),
    ):
        destroy(site.order, site.means, NOW)
    assert destroy(site.order, site.means, NOW).verify(SITE.public_hex)


def test_a_changed_record_stops_everything(site: Site) -> None:
    order, means = with_server(site, lambda shards: ())
    with pytest.raises(DestructionError):
        destroy(order, means, NOW)
    path = site.means.records / "withdrawal-12.begun.json"
    whole = path.read_bytes()
    for changed in (
        b"",
        b"{}",
        b"[]",
        whole[:-1],
        whole.replace(b"2026-06-01", b"2026-05-01"),
        whole.replace(b"file", b"fale"),
    ):
        path.write_bytes(changed)
        with pytest.raises(DestructionError, match="record that this order was begun was changed"):
            destroy(order, means, NOW)
    path.write_bytes(whole)
    certificate = destroy(order, replace(means, delete_shards=lambda shards: shards), NOW)
    path = site.means.records / "withdrawal-12.certificate.json"
    path.write_text(certificate.to_json().replace("centre1", "centre2"), encoding="ascii")
    with pytest.raises(DestructionError, match="changed or is foreign"):
        destroy(order, means, NOW)


# ---------------------------------------------------------------------------------------------- certificates


def test_any_changed_missing_or_added_byte_of_a_certificate_is_noticed(site: Site) -> None:
    whole = destroy(site.order, site.means, NOW).to_json().encode("ascii")

    def holds(raw: bytes) -> bool:
        try:
            return Certificate.from_json(raw).verify(SITE.public_hex)
        except DestructionError:
            return False

    assert holds(whole)
    for place, byte in enumerate(whole):
        for mask in (0x01, 0x20):  # the lowest bit; the case of a letter, which hex digits would forgive
            assert not holds(whole[:place] + bytes([byte ^ mask]) + whole[place + 1 :]), place
        assert not holds(whole[:place] + whole[place + 1 :]), place
        assert not holds(whole[:place] + b" " + whole[place:]), place
    assert not holds(whole + b"\n")
    assert not holds(whole * 2)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "\ud800", '{"format": "fedprivseg destruction 1"}', b"\xff"])
def test_what_is_no_certificate_is_said_to_be_none(text: str | bytes) -> None:
    with pytest.raises(DestructionError, match="no certificate of destruction"):
        Certificate.from_json(text)


def test_an_unsigned_or_resigned_certificate_does_not_verify(site: Site) -> None:
    certificate = destroy(site.order, site.means, NOW)
    unsigned = certificate.model_copy(update={"signature": ""})
    assert not unsigned.verify(SITE.public_hex)
    foreign = certificate.model_copy(update={"signature": OTHER.sign(certificate.signed_bytes()).hex()})
    assert not foreign.verify(SITE.public_hex)
    assert not foreign.verify(OTHER.public_hex)  # it still says whose it is
    assert json.loads(certificate.to_json())["site_key"] == SITE.public_hex


def test_what_the_ledger_is_told(site: Site) -> None:
    certificate = destroy(site.order, site.means, NOW)
    assert dict(certificate.facts) == {
        "certificate": hashlib.sha256(certificate.to_json().encode()).hexdigest(),
        "class": "clinical image, structural",
        "clause": "5.8-f",
        "items": 3,
        "level": 3,
        "method": "cryptographic erase",
        "order": site.order.digest,
    }
