"""Files of policies: a hospital's own only forbid, and a file that cannot be relied on grants nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from access_cases import (
    AUTHORIZER,
    CARE,
    FORBID_ALL,
    INFORMED,
    KEEP,
    NIGHT,
    NURSE,
    PERMIT_ALL,
    PRINT,
    RESIDENT,
    ROWS,
    SAID,
    VIEW,
    ask,
    clock,
    house,
    names,
    rec,
    with_permits,
)

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.access import authorizer as module
from fedprivseg.governance.access.authorizer import CedarAuthorizer
from fedprivseg.governance.access.cedar_files import MOST_BYTES
from fedprivseg.governance.access.roles import (
    Request,
)


def test_companion_files_of_macos_are_no_policies_of_the_hospital(tmp_path: Path) -> None:
    """Only those: any other file of that name that cannot be relied on closes all."""
    (tmp_path / "cedar").mkdir()
    house(tmp_path / "cedar", b"\x00\x05\x16\x07\xff", "._house.cedar")
    assert isinstance(module.site_authorizer(tmp_path), CedarAuthorizer)
    house(tmp_path / "cedar", b"\xff\x05\x16\x07\xff", "._house.cedar")
    assert not isinstance(module.site_authorizer(tmp_path), CedarAuthorizer)


def test_a_hospital_permits_nothing_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"hospital\.all is a permit\. A site's own policies can only forbid"):
        CedarAuthorizer([house(tmp_path, PERMIT_ALL)])
    with pytest.raises(RequestError, match="begin with 'hospital.'"):
        CedarAuthorizer([house(tmp_path, FORBID_ALL.replace("hospital.none", "treatment.none"))])


def test_no_permit_opens_what_the_package_forbids(tmp_path: Path) -> None:
    more = with_permits(tmp_path)
    assert more.decide(Request(NURSE, VIEW, rec(INFORMED), CARE)).decision.rule == "lax.all"
    for row in ROWS:
        if not row.allowed and row.policies:
            ruling = more.decide(ask(row))
            assert (ruling.allowed, names(ruling)) == (False, set(row.policies.split())), row.name


def test_a_hospital_can_forbid_more(tmp_path: Path) -> None:
    less = CedarAuthorizer([house(tmp_path, FORBID_ALL)], clock=clock, limit_s=60)
    for row in ROWS:
        assert not less.decide(ask(row)).allowed, row.name
    assert less.decide(ask(ROWS[0])).decision.reason == "Nobody may do anything."


def test_a_hospitals_own_policies_take_away_and_never_give(tmp_path: Path) -> None:
    """Over the whole table: whatever is granted with them is granted without, and only what they name is taken away."""
    (tmp_path / "cedar").mkdir()
    house(tmp_path / "cedar", NIGHT)
    less = module.site_authorizer(tmp_path, clock=clock)
    lost = set()
    for row in ROWS:
        ruling = less.decide(ask(row))
        assert row.allowed or not ruling.allowed, row.name
        if row.allowed and not ruling.allowed:
            assert names(ruling) == {ruling.decision.rule}
            lost.add((ruling.decision.rule, ruling.clause))
    assert lost == {("hospital.no-training", "house rule 4")}
    resident = Request(replace(RESIDENT, rights=KEEP), PRINT, rec(level=1), CARE)
    assert (AUTHORIZER.decide(resident).allowed, less.decide(resident).decision.rule) == (True, "hospital.no-prints")


def test_a_hospitals_file_counts_however_its_suffix_is_written(tmp_path: Path) -> None:
    (tmp_path / "cedar").mkdir()
    house(tmp_path / "cedar", FORBID_ALL, "HOUSE.CEDAR")
    closed = module.site_authorizer(tmp_path, clock=clock)
    assert not any(closed.decide(ask(row)).allowed for row in ROWS)


def test_a_site_without_policies_of_its_own_has_the_packages(tmp_path: Path) -> None:
    for made in (False, True):
        if made:
            (tmp_path / "cedar").mkdir()
            (tmp_path / "cedar" / "notes.txt").write_text("no policies yet")
        found = module.site_authorizer(tmp_path, clock=clock)
        assert isinstance(found, CedarAuthorizer)
        assert found.sha256 == AUTHORIZER.sha256


@pytest.mark.parametrize("way", ["a permit", "no Cedar", "unreadable", "no folder", "another schema", "one of two"])
def test_own_policies_that_do_not_hold_grant_nothing(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "cedar"
    if way == "no folder":
        folder.write_text("a file")
    else:
        folder.mkdir()
        text = {
            "a permit": PERMIT_ALL,
            "no Cedar": "forbid everything",
            "unreadable": b"\xff\xfe",
            "another schema": FORBID_ALL.replace("resource)", "resource) when { context.weekend }"),
            "one of two": "",
        }[way]
        house(folder, text)
        if way == "one of two":
            house(folder, NIGHT, "another.cedar")
    closed = module.site_authorizer(tmp_path, clock=clock)
    for row in ROWS:
        ruling = closed.decide(ask(row))
        assert (ruling.allowed, ruling.decision.rule, ruling.clause) == (False, "access.fault", "5.4.2-d"), row.name
    assert str(tmp_path) not in ruling.decision.reason
    assert "nothing is granted" in ruling.decision.reason


def test_a_hospitals_policy_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    plain = CedarAuthorizer([house(tmp_path, FORBID_ALL)])
    marked = CedarAuthorizer([house(tmp_path, b"\xef\xbb\xbf" + FORBID_ALL.encode())])
    assert marked.sha256 == plain.sha256


def test_the_hash_names_the_policies(tmp_path: Path) -> None:
    one = CedarAuthorizer([house(tmp_path, FORBID_ALL)])
    other = CedarAuthorizer([house(tmp_path, FORBID_ALL.replace("rule 2", "rule 9"), "other.cedar")])
    assert AUTHORIZER.sha256 == CedarAuthorizer().sha256
    assert len({AUTHORIZER.sha256, one.sha256, other.sha256}) == 3


BROKEN = {
    "no Cedar": ("forbid (principal", "not in the Cedar language"),
    "an unfinished policy, which would swallow the next": (
        SAID + "forbid (principal, action, resource)",
        "not in the Cedar",
    ),
    "an unclosed comment of policies": ("// nothing here", "or no policy"),
    "empty": ("", "or no policy"),
    "a template": (SAID + "forbid (principal == ?principal, action, resource);", "a template"),
    "no annotation": ("forbid (principal, action, resource);", "it needs @id, @clause and @says"),
    "no id": ('@clause("y") @says("z.") forbid (principal, action, resource);', "it needs @id"),
    "an empty sentence": (
        '@id("hospital.x") @clause("y") @says("") forbid (principal, action, resource);',
        "it needs @id",
    ),
    "a mistyped annotation": (SAID + '@notise("n") forbid (principal, action, resource);', "and nothing else"),
    "an id with spaces": (
        SAID.replace('"hospital.x"', '"a b"') + "forbid (principal, action, resource);",
        "An id is of",
    ),
    "an id of the authorizer's own": (
        SAID.replace('"hospital.x"', '"access.no"') + "forbid (principal, action, resource);",
        "An id",
    ),
    "an unknown attribute": (
        SAID + "forbid (principal, action, resource) when { resource.colour == 1 };",
        "hospital.x: .*colour",
    ),
    "an unknown circumstance": (
        SAID + "forbid (principal, action, resource) when { context.weekend };",
        "hospital.x: .*weekend",
    ),
    "an unknown title": (
        SAID + 'forbid (principal, action, resource) when { principal == Title::"cheif" };',
        "hospital.x: ",
    ),
    "an unknown action": (SAID + 'forbid (principal, action == Action::"fly", resource);', "hospital.x: .*fly"),
    "an unknown type": (SAID + "forbid (principal is Robot, action, resource);", "hospital.x: .*Robot"),
    "a comparison of unlike things": (
        SAID + 'forbid (principal, action, resource) when { resource.level < "4" };',
        "hospital.x: ",
    ),
    "an optional attribute, unguarded": (
        SAID + 'forbid (principal, action, resource) when { resource.group == "g" };',
        "hospital.x: ",
    ),
    "an attribute of staff, for all": (
        SAID + 'forbid (principal, action, resource) when { principal.department == "d" };',
        "hospital.x: ",
    ),
    "an id twice": (
        SAID + "forbid (principal, action, resource);" + SAID + "forbid (principal, action, resource);",
        "one @id: hospital.x",
    ),
    "a permit": (SAID + "permit (principal, action, resource);", "can only forbid"),
    "an id of the package": (
        SAID.replace('"hospital.x"', '"keep.right"') + "forbid (principal, action, resource);",
        "keep.right is a forbid",
    ),
    "no text": (b"\xff\xfe", "UnicodeDecodeError"),
    "too large": ("//" + " " * MOST_BYTES, "bytes. Split it"),
}


@pytest.mark.parametrize(("text", "why"), BROKEN.values(), ids=BROKEN)
def test_a_faulty_policy_file_makes_no_authorizer(tmp_path: Path, text: str | bytes, why: str) -> None:
    path = house(tmp_path, text)
    with pytest.raises(RequestError, match=why) as caught:
        CedarAuthorizer([path])
    assert str(tmp_path) not in str(caught.value)
    assert "@id:" in str(caught.value) or "house.cedar" in str(caught.value)


def test_one_faulty_file_among_good_ones_is_named(tmp_path: Path) -> None:
    good, bad = (
        house(tmp_path, FORBID_ALL),
        house(tmp_path, SAID + "permit (principal is Robot, action, resource);", "bad.cedar"),
    )
    with pytest.raises(RequestError, match="bad.cedar"):
        CedarAuthorizer([good, bad])


@pytest.mark.parametrize("way", ["missing", "a folder"])
def test_a_policy_file_that_cannot_be_read_makes_no_authorizer(tmp_path: Path, way: str) -> None:
    path = tmp_path / "house.cedar"
    if way == "a folder":
        path.mkdir()
    with pytest.raises(RequestError, match=r"house\.cedar cannot be read") as caught:
        CedarAuthorizer([path])
    assert str(tmp_path) not in str(caught.value)


def test_too_many_policies_make_no_authorizer(tmp_path: Path) -> None:
    text = "".join(FORBID_ALL.replace("hospital.none", f"hospital.{number}") for number in range(module.MOST_POLICIES))
    with pytest.raises(RequestError, match="at most 500"):
        CedarAuthorizer([house(tmp_path, text)])
