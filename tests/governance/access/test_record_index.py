"""What a site holds: the index of records and the accounts are read whole or not at all, and no fault names a patient."""

from __future__ import annotations

import json
from datetime import date

import pytest
from hospital import entry, hold, know, own

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.access.record_index import Account, Entry, read_accounts, read_records, written
from fedprivseg.governance.access.roles import Action, Guardian, Patient, Staff, Title


def test_what_is_written_reads_back(tmp_path):
    lines = [entry("P1", "imaging-report", special=True), entry("P1", "images", level=5, doctors=[])]
    hold(tmp_path, *lines)
    found = read_records(tmp_path / "records.jsonl")
    assert list(found) == [("P1", "imaging-report"), ("P1", "images")]
    again = tmp_path / "again.jsonl"
    again.write_text(written(found.values()))
    assert read_records(again) == found


def test_a_record_is_what_policies_see_of_an_entry():
    doctor = Staff("attending-rhythm", Title.ATTENDING, "cardiology")
    one = Entry.model_validate_json(json.dumps(entry("P1", "images", doctors=["attending-rhythm", "left-last-year"])))
    record = one.record({"attending-rhythm": doctor}, date(2026, 3, 31))
    assert (record.patient, record.age_days, record.doctors, record.level) == ("P1", 30, (doctor,), 4)
    with pytest.raises(RequestError, match="age"):
        one.record({}, date(2026, 2, 28))


def test_accounts_are_patients_guardians_and_children(tmp_path):
    papers = {"kinship": "guardian", "verified": True, "bound": True, "rights": ["print"]}
    know(tmp_path, own("P1"), {"id": "g", "patients": ["P1", "P2"], **papers})
    found = read_accounts(tmp_path / "accounts.jsonl")
    assert found["account-P1"].principal() == Patient("P1", verified=True)
    guardian = found["g"].principal()
    assert isinstance(guardian, Guardian)
    assert (guardian.patients, guardian.bound, guardian.authorised) == (frozenset({"P1", "P2"}), True, False)
    assert guardian.rights == frozenset({Action.PRINT})
    assert [each.role for each in found.values()] == ["patient", "guardian"]


BROKEN = {
    "twice": ([entry("P7secret", "images")] * 2, "line 2 stands twice"),
    "an unknown field": ([entry("P7secret", "images", colour="red")], "line 1 .*colour"),
    "a level that does not exist": ([entry("P7secret", "images", level=6)], "line 1 .*level"),
    "an item that is a path": ([entry("P7secret", "../images")], "line 1 .*item"),
    "too many doctors": ([entry("P7secret", "images", doctors=[str(n) for n in range(9)])], "line 1 .*doctors"),
    "no day": ([entry("P1", "images"), entry("P7secret", "images", reported="today")], "line 2 .*reported"),
}


@pytest.mark.parametrize(("lines", "said"), BROKEN.values(), ids=BROKEN)
def test_a_faulty_index_is_no_index_and_its_fault_names_no_patient(tmp_path, lines, said):
    hold(tmp_path, *lines)
    with pytest.raises(RequestError, match=said) as caught:
        read_records(tmp_path / "records.jsonl")
    assert "secret" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_index_may_begin_with_a_byte_order_mark(tmp_path):
    hold(tmp_path, entry("P1", "images"))
    path = tmp_path / "records.jsonl"
    plain = read_records(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_records(path) == plain


WILD = [b"[" * 3000, b'{"level": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("body", [None, b"\xff", b"{", b'{"subject": "P1"}\n\n', *WILD])
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, body):
    if body is not None:
        (tmp_path / "records.jsonl").write_bytes(body)
    with pytest.raises(RequestError, match=r"records\.jsonl") as caught:
        read_records(tmp_path / "records.jsonl")
    assert str(tmp_path) not in str(caught.value)


def test_nobody_asks_as_two_patients():
    with pytest.raises(ValueError, match="of one patient"):
        Account.model_validate({"id": "a", "kinship": "self", "patients": ["P1", "P2"]})
