"""The data-use agreement: both sign it, and outside of it nothing leaves."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.core.kinds import IMAGE_CODE, MASK_CODE, RAW, STATUS
from fedprivseg.crypto.identity import SiteKey
from fedprivseg.governance.policy.agreement import Agreement, BreachPlan, Terms, objection, read_agreement

# Fixed keys, for tests only.
SITE, SERVER, OTHER = (SiteKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
TERMS = Terms(
    site="centre1",
    server="server",
    site_key=SITE.public_hex,
    server_key=SERVER.public_hex,
    study="Does the right ventricle gain from other centres?",
    kinds=(IMAGE_CODE, STATUS),
    purposes=("train", "infer"),
    start=date(2026, 1, 1),
    end=date(2026, 6, 30),
    protections=("signed payloads",),
    duties=("destroy codes at the end",),
    breach=BreachPlan(contact="data protection office", hours=24, steps=("stop",)),
)
SIGNED = Agreement(terms=TERMS).signed("site", SITE).signed("server", SERVER)
WANTED: dict[str, Any] = {
    "site_key": SITE.public_hex,
    "server_key": SERVER.public_hex,
    "kind": IMAGE_CODE,
    "purpose": "train",
    "today": date(2026, 3, 1),
}


def terms(**changes: Any) -> Agreement:
    return Agreement(terms=TERMS.model_copy(update=changes)).signed("site", SITE).signed("server", SERVER)


@pytest.mark.parametrize(
    ("agreement", "changes", "rule"),
    [
        (SIGNED, {}, None),
        (SIGNED, {"server_key": None}, None),
        (SIGNED, {"today": date(2026, 1, 1)}, None),
        (SIGNED, {"today": date(2026, 6, 30)}, None),
        (None, {}, "agreement.absent"),
        (Agreement(terms=TERMS), {}, "agreement.unsigned"),
        (Agreement(terms=TERMS).signed("site", SITE), {}, "agreement.unsigned"),
        (Agreement(terms=TERMS).signed("server", SERVER), {}, "agreement.unsigned"),
        (SIGNED.model_copy(update={"server_signature": SIGNED.site_signature}), {}, "agreement.unsigned"),
        (SIGNED.model_copy(update={"server_signature": "no hex"}), {}, "agreement.unsigned"),
        (
            SIGNED.model_copy(update={"terms": TERMS.model_copy(update={"end": date(2030, 1, 1)})}),
            {},
            "agreement.unsigned",
        ),
        (SIGNED, {"site_key": OTHER.public_hex}, "agreement.parties"),
        (SIGNED, {"server_key": OTHER.public_hex}, "agreement.parties"),
        (SIGNED, {"today": date(2025, 12, 31)}, "agreement.term"),
        (SIGNED, {"today": date(2026, 7, 1)}, "agreement.term"),
        (SIGNED, {"kind": MASK_CODE}, "agreement.kind"),
        (SIGNED, {"kind": RAW}, "agreement.kind"),
        (SIGNED, {"purpose": "measure"}, "agreement.purpose"),
        (terms(kinds=(MASK_CODE,)), {}, "agreement.kind"),
    ],
)
def test_outside_of_a_signed_agreement_nothing_leaves(
    agreement: Agreement | None, changes: dict[str, Any], rule: str | None
) -> None:
    found = objection(agreement, **{**WANTED, **changes})
    assert (None if found is None else found.rule) == rule
    if found is not None:
        assert not found.allowed
        assert found.clause == "5.3.2-a"
        assert found.reason.endswith(".")


def test_a_party_signs_with_the_key_that_the_terms_name() -> None:
    with pytest.raises(RequestError, match="names another key"):
        Agreement(terms=TERMS).signed("site", OTHER)


def test_every_changed_term_is_noticed() -> None:
    others = {
        "site": "centre2",
        "server": "another",
        "site_key": OTHER.public_hex,
        "server_key": OTHER.public_hex,
        "study": "Something else.",
        "kinds": ["image-code"],
        "purposes": ["train"],
        "start": "2026-01-02",
        "end": "2026-07-01",
        "protections": [],
        "duties": [],
        "breach": {"contact": "data protection office", "hours": 48, "steps": ["stop"]},
    }
    assert set(others) == set(Terms.model_fields)
    for name, other in others.items():
        changed = Terms.model_validate({**TERMS.model_dump(), name: other})
        assert changed != TERMS, name
        assert SIGNED.model_copy(update={"terms": changed}).lacks(), name
    assert SIGNED.lacks() == ()


def test_a_file_that_cannot_be_read_is_an_error_and_none_is_none(tmp_path: Path) -> None:
    path = tmp_path / "agreement.json"
    assert read_agreement(path) is None
    path.write_text(SIGNED.model_dump_json())
    assert read_agreement(path) == SIGNED
    path.write_text(SIGNED.model_dump_json()[:-5])
    with pytest.raises(RequestError, match="cannot be read"):
        read_agreement(path)


def test_a_term_ends_after_it_starts() -> None:
    with pytest.raises(ValidationError, match="before it starts"):
        Terms.model_validate({**TERMS.model_dump(), "end": date(2025, 1, 1)})


def test_an_agreement_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "agreement.json"
    path.write_text(SIGNED.model_dump_json(), encoding="utf-8-sig")
    assert read_agreement(path) == SIGNED


@pytest.mark.parametrize("text", ["[" * 3000, "1" * 5000, '{"terms": ' * 3000, '{"terms": ' + "9" * 5000 + "}"])
def test_an_agreement_of_wild_text_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agreement.json"
    path.write_text(text)
    with pytest.raises(RequestError, match="agreement cannot be read"):
        read_agreement(path)
