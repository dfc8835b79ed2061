"""The people of a simulated hospital: the same for the same seed, cases of every rule, and never written over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hospital import TODAY, hospital

from fedprivseg.core.records import Subject
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.governance.access.record_index import read_accounts, read_records
from fedprivseg.governance.access.roles import Title
from fedprivseg.governance.access.staff import read_staff
from fedprivseg.study.synthetic_people import people

FILES = ("staff.toml", "records.jsonl", "accounts.jsonl")


def test_the_same_seed_gives_the_same_hospital_and_another_site_another(tmp_path):
    one, same = hospital(tmp_path / "a"), hospital(tmp_path / "b")
    other = hospital(tmp_path / "a", "centre2")
    assert [(one / name).read_bytes() for name in FILES] == [(same / name).read_bytes() for name in FILES]
    assert (one / "records.jsonl").read_bytes() != (other / "records.jsonl").read_bytes()


def test_even_a_small_hospital_has_a_case_of_each_kind(tmp_path):
    home = hospital(tmp_path, subjects=3)
    staff, records = read_staff(home / "staff.toml"), read_records(home / "records.jsonl").values()
    assert {person.title for person in staff.values()} == set(Title)
    assert {record.level for record in records} == {1, 2, 3, 4, 5}
    assert {record.granularity for record in records} == {"default", "informed", "authorised"}
    for trait in ("special", "infectious", "sensitive", "deidentified"):
        assert {getattr(record, trait) for record in records} == {True, False}, trait
    named = {name for record in records for name in (*record.doctors, *record.treating, *record.attending)}
    assert named <= set(staff)
    assert all(0 <= record.record(staff, TODAY).age_days <= 200 for record in records)
    assert {each.kinship for each in read_accounts(home / "accounts.jsonl").values()} == {"self", "guardian", "child"}


def test_what_a_hospital_has_written_itself_stays(tmp_path):
    home = hospital(tmp_path)
    (home / "staff.toml").write_text("# its own")
    (home / "records.jsonl").unlink()
    people(SiteFolder(home), [], "cine-mri", (), TODAY, 0)
    assert (home / "staff.toml").read_text() == "# its own"
    assert (home / "records.jsonl").read_text() == ""


def test_a_policys_special_diseases_are_special(tmp_path):
    folk = [
        Subject(
            f"P{n}", 1, "train", True, {"ED": 0, "ES": 1}, Path("image"), None, ("LV", "MYO", "RV"), {"disease": "DCM"}
        )
        for n in range(6)
    ]
    people(
        SiteFolder(tmp_path),
        [*folk[:3], *(replace(one, attributes={"disease": "NOR"}) for one in folk[3:])],
        "cine-mri",
        ("DCM",),
        TODAY,
        0,
    )
    index = read_records(tmp_path / "records.jsonl")
    assert all(index[f"P{n}", "images"].level == 5 for n in range(3))
    # One of six has a special disease by the hospital's own draw, 0.1 of them and at least one.
    assert sum(index[f"P{n}", "images"].level == 5 for n in range(3, 6)) <= 1
