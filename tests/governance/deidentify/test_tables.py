"""Operations on metadata, plain, keyed and counting."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedprivseg.core.errors import RequestError
from fedprivseg.governance.deidentify.counts import Counts, Statistics, k_anonymity
from fedprivseg.governance.deidentify.metadata import Record, Table
from fedprivseg.governance.deidentify.secret import Secret, Unkeyed
from fedprivseg.governance.deidentify.tables import (
    AgeBand,
    Masking,
    NullInsertion,
    NumericTransform,
    Postcode,
    TableOperation,
    Truncation,
    Year,
)
from fedprivseg.governance.deidentify.tables_keyed import (
    DateShift,
    Permutation,
    Rearrangement,
    Substitution,
    pseudonym,
)

SECRET = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))

PATIENT: dict[str, Any] = {
    "code": "MRN-4711",
    "name": "Zhang Wei",
    "age": 63,
    "born": "1961-05-17",
    "scanned": "20240229",
    "postcode": "510080",
    "weight": 71.5,
    "sex": "F",
}
PATIENTS: Table = tuple(PATIENT | {"code": f"MRN-{number}", "age": 40 + number} for number in range(12))

OPERATIONS: tuple[tuple[TableOperation, str], ...] = (
    (AgeBand(field="age"), "generalisation of age to bands of 5 years, 90+ in one"),
    (
        Year(fields=("born", "scanned"), earliest=1935),
        "generalisation of born, scanned to years, those before 1935 in one",
    ),
    (Postcode(field="postcode", keep=2), "generalisation of postcode to its first 2 characters"),
    (Truncation(field="name", length=3), "truncation of name after 3 characters"),
    (Masking(field="name", first=1, last=1), "masking of name, first 1 and last 1 characters stay"),
    (NullInsertion(fields=("name", "weight")), "null insertion in name, weight"),
    (NumericTransform(field="weight", gain=2.0, offset=-1.0), "numeric transform of weight: gain 2, offset -1"),
    (
        DateShift(fields=("born", "scanned"), subject="code"),
        "random perturbation of born, scanned by up to 365 days, keyed by code",
    ),
    (Substitution(field="code"), "substitution of code by 16 hex digits of HMAC-SHA-256, keyed"),
    (Permutation(fields=("age", "sex")), "permutation of age, sex among the records, keyed"),
    (Rearrangement(), "rearrangement of the records, keyed"),
)


def named(*names: str | int, secret: Secret = SECRET) -> Secret:
    return replace(secret, names=names)


def one(operation: TableOperation, **changes: Any) -> Record:
    (record,) = operation.apply((PATIENT | changes,), SECRET)
    return record


def ids(value: Any) -> str | None:
    return type(value).__name__ if isinstance(value, TableOperation) else None


# ---------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize(("operation", "line"), OPERATIONS, ids=ids)
def test_the_history_names_technique_and_parameters_and_no_value(operation: TableOperation, line: str) -> None:
    assert operation.history() == line
    assert line.startswith(operation.techniques[0].value)


@pytest.mark.parametrize(("operation", "line"), OPERATIONS, ids=ids)
def test_records_given_stay_as_they_were_and_those_returned_cannot_be_changed(
    operation: TableOperation, line: str
) -> None:
    before = [dict(record) for record in PATIENTS]
    table = operation.apply(PATIENTS, SECRET)
    assert [dict(record) for record in PATIENTS] == before
    assert [dict(record) for record in table] != before
    for record in table:
        assert set(record) == set(PATIENT)
        with pytest.raises(TypeError):
            record["age"] = 1  # type: ignore[index]


PLAIN = [operation for operation, _ in OPERATIONS if not isinstance(operation, Permutation | Rearrangement)]


@pytest.mark.parametrize("operation", PLAIN, ids=ids)
def test_what_is_not_known_stays_unknown(operation: TableOperation) -> None:
    unknown = {field: None for field in PATIENT if field != "code" or isinstance(operation, Substitution)}
    assert one(operation, **unknown) == PATIENT | unknown


@pytest.mark.parametrize(("operation", "line"), OPERATIONS[:-1], ids=ids)
def test_a_field_that_one_record_lacks_is_refused(operation: TableOperation, line: str) -> None:
    lacking = [PATIENT, {"Name": "Zhang Wei", "sex": "F", "note": ""}]
    with pytest.raises(RequestError, match=r"1 of 2 records have no field .*; fields of all of them are: sex\."):
        operation.apply(lacking, SECRET)


@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        (AgeBand(field="age"), {"age": "63Y"}),
        (AgeBand(field="age"), {"age": -1}),
        (AgeBand(field="age"), {"age": 4711}),
        (AgeBand(field="age"), {"age": float("nan")}),
        (AgeBand(field="age"), {"age": True}),
        (Year(fields=("born",)), {"born": "17.05.1961"}),
        (Year(fields=("born",)), {"born": "1961-0517"}),
        (Year(fields=("born",)), {"born": "1961-02-29"}),
        (Year(fields=("born",)), {"born": 19610517}),
        (Year(fields=("born",)), {"born": "１９６１0517"}),
        (Postcode(field="postcode", keep=6), {}),
        (Postcode(field="postcode", keep=2), {"postcode": 510080}),
        (Truncation(field="age", length=2), {}),
        (Masking(field="age"), {}),
        (NumericTransform(field="name", gain=1.0, offset=0.0), {}),
        (NumericTransform(field="weight", gain=1e300, offset=0.0), {"weight": 1e300}),
        (NumericTransform(field="weight", gain=1.0, offset=0.0), {"weight": 10**400}),
        (NumericTransform(field="weight", gain=1.0, offset=0.0), {"weight": float("inf")}),
        (Substitution(field="weight"), {}),
        (DateShift(fields=("born",), subject="code"), {"code": None}),
        (DateShift(fields=("born",), subject="code"), {"born": "yesterday"}),
        (DateShift(fields=("weight",), subject="code"), {}),
    ],
)
def test_entries_of_another_kind_are_refused_without_being_told(
    operation: TableOperation, changes: dict[str, Any]
) -> None:
    with pytest.raises(RequestError) as caught:
        one(operation, **changes)
    told = str(caught.value)
    assert not any(len(str(entry)) > 3 and str(entry) in told for entry in (PATIENT | changes).values())


@pytest.mark.parametrize(
    "build",
    [
        lambda: AgeBand(field="age", years=1),
        lambda: AgeBand(field="age", years=5, cap=91),
        lambda: Year(fields="born"),  # type: ignore[arg-type]
        lambda: Year(fields=()),
        lambda: Postcode(field="postcode", keep=0),
        lambda: Truncation(field="name", length=0),
        lambda: Masking(field="name", first=-1),
        lambda: NullInsertion(fields="name"),  # type: ignore[arg-type]
        lambda: NumericTransform(field="age", gain=0.0, offset=1.0),
        lambda: DateShift(fields=("born",), subject="code", days=0),
        lambda: DateShift(fields=(), subject="code"),
        lambda: Permutation(fields=()),
        lambda: Statistics(fields=("age",), k=1),
        lambda: Statistics(fields=()),
    ],
)
def test_parameters_that_make_no_sense_are_refused(build: Any) -> None:
    with pytest.raises(ValidationError):
        build()


def test_a_keyed_operation_without_a_key_is_refused() -> None:
    for operation, _ in OPERATIONS[-4:]:
        with pytest.raises(RequestError, match="name its key file"):
            operation.apply(PATIENTS, Unkeyed(operation.techniques[0]))


# ---------------------------------------------------------------------------------------------- coarser


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "0-4"), (4, "0-4"), (5, "5-9"), (63, "60-64"), (89, "85-89"), (89.9, "85-89"), (90, "90+"), (104, "90+")],
)
def test_age_bands_end_at_90_as_safe_harbor_has_it(age: float, band: str) -> None:
    assert one(AgeBand(field="age"), age=age)["age"] == band


@given(age=st.integers(0, 149), years=st.integers(2, 40), cap=st.integers(1, 90))
@settings(deadline=None)
def test_every_age_is_in_the_band_that_it_gets_and_no_band_reaches_the_cap(age: int, years: int, cap: int) -> None:
    band = str(one(AgeBand(field="age", years=years, cap=cap), age=age)["age"])
    if age >= cap:
        assert band == f"{cap}+"
    else:
        first, last = map(int, band.split("-"))
        assert first <= age <= last < cap
        assert first % years == 0
        assert last - first < years


def test_dates_become_years_and_early_ones_share_one_word() -> None:
    operation = Year(fields=("born", "scanned"), earliest=1962)
    assert {field: one(operation)[field] for field in ("born", "scanned")} == {"born": "before 1962", "scanned": "2024"}
    assert one(Year(fields=("born",)))["born"] == "1961"


def test_text_is_cut_and_masked_as_asked() -> None:
    assert one(Postcode(field="postcode", keep=2))["postcode"] == "51"
    assert one(Truncation(field="name", length=3))["name"] == "Zha"
    assert one(Masking(field="name", first=1, last=1))["name"] == "Z***i"
    assert one(Masking(field="name", first=2))["name"] == "Zh***"
    assert one(Masking(field="name"))["name"] == "***"


@given(text=st.text(max_size=12), first=st.integers(0, 5), last=st.integers(0, 5))
@settings(deadline=None)
def test_masked_text_tells_neither_more_than_asked_nor_its_length(text: str, first: int, last: int) -> None:
    masked = str(one(Masking(field="name", first=first, last=last), name=text)["name"])
    if len(text) <= first + last:
        assert masked == "***"
    else:
        assert masked == text[:first] + "***" + (text[-last:] if last else "")


def test_a_numeric_transform_by_hand() -> None:
    assert one(NumericTransform(field="weight", gain=2.0, offset=-1.0))["weight"] == 142
    assert one(NumericTransform(field="age", gain=0.5, offset=0.0))["age"] == 31.5


# ---------------------------------------------------------------------------------------------- keyed


def test_a_pseudonym_is_16_hex_digits_of_hmac_sha_256() -> None:
    # Purpose and text as `Secret.digest` joins them: the purpose behind its length in 4 bytes.
    message = b"\x00\x00\x00\x09pseudonymMRN-4711"
    expected = hmac.new(bytes(range(32)), message, hashlib.sha256).hexdigest()[:16]
    assert pseudonym(SECRET, "MRN-4711") == expected == one(Substitution(field="code"))["code"]


@given(codes=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=20))
@settings(deadline=None)
def test_pseudonyms_are_the_same_exactly_where_codes_are(codes: list[str]) -> None:
    table = Substitution(field="code").apply(tuple({"code": code} for code in codes), SECRET)
    given_ = [str(record["code"]) for record in table]
    assert len(set(given_)) == len(set(codes))
    assert all(len(each) == 16 and set(each) <= set("0123456789abcdef") for each in given_)
    assert all(each != pseudonym(OTHER, code) for each, code in zip(given_, codes, strict=True))


def test_a_whole_number_and_its_text_are_one_code() -> None:
    assert one(Substitution(field="code"), code=7) == one(Substitution(field="code"), code="7")


days = st.dates(date(1900, 1, 1), date(2090, 12, 31))


@given(first=days, second=days, code=st.text(min_size=1, max_size=6), most=st.integers(1, 3650))
@settings(deadline=None)
def test_shifted_dates_keep_their_interval_move_within_bounds_and_come_back(
    first: date, second: date, code: str, most: int
) -> None:
    operation = DateShift(fields=("first", "second"), subject="code", days=most)
    records = [{"code": code, "first": first.isoformat(), "second": f"{second:%Y%m%d}"}]
    (shifted,) = operation.apply(records, SECRET)
    moved_first, moved_second = (date.fromisoformat(str(shifted[field])) for field in ("first", "second"))
    assert moved_second - moved_first == second - first
    assert timedelta(1) <= abs(moved_first - first) <= timedelta(most)
    assert (len(str(shifted["first"])), len(str(shifted["second"]))) == (10, 8)
    assert [dict(record) for record in operation.undo((shifted,), SECRET)] == records


def test_offsets_are_the_subject_s_own_and_the_secret_s() -> None:
    def offsets(secret: Secret) -> list[int]:
        records = [{"code": f"MRN-{number}", "day": "2000-01-01"} for number in range(200)]
        table = DateShift(fields=("day",), subject="code", days=5).apply(records, secret)
        return [(date.fromisoformat(str(record["day"])) - date(2000, 1, 1)).days for record in table]

    assert set(offsets(SECRET)) == {-5, -4, -3, -2, -1, 1, 2, 3, 4, 5}
    assert offsets(SECRET) == offsets(SECRET)
    # Two random offsets of ten are equal once in ten times: 20 of 200, with a deviation of 4.2.
    assert sum(mine == its for mine, its in zip(offsets(SECRET), offsets(OTHER), strict=True)) < 45


def test_a_date_that_would_leave_the_calendar_is_refused_without_being_told() -> None:
    records = [{"code": f"MRN-{number}", "day": "9999-12-31"} for number in range(20)]
    with pytest.raises(RequestError, match="would leave the calendar") as caught:
        DateShift(fields=("day",), subject="code").apply(records, SECRET)
    assert "9999" not in str(caught.value)


@pytest.mark.parametrize("operation", [Permutation(fields=("age", "sex")), Rearrangement()], ids=ids)
def test_the_key_undoes_an_order_and_another_key_does_not(operation: TableOperation) -> None:
    table = operation.apply(PATIENTS, named("order"))
    assert tuple(dict(record) for record in operation.undo(table, named("order"))) == PATIENTS
    for wrong in (named("order", secret=OTHER), named("another")):
        assert tuple(dict(record) for record in operation.undo(table, wrong)) != PATIENTS


entries = st.one_of(st.none(), st.text(max_size=4), st.integers(-3, 3), st.floats(-2, 2))
tables = st.lists(st.fixed_dictionaries({"a": entries, "b": entries, "c": entries}), min_size=2, max_size=12)


@given(records=tables, seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_permuted_values_stay_together_and_all_others_stay_in_place(records: list[dict[str, Any]], seed: int) -> None:
    operation = Permutation(fields=("a", "b"))
    table = operation.apply(records, named(seed))
    assert Counter(repr((record["a"], record["b"])) for record in table) == Counter(
        repr((record["a"], record["b"])) for record in records
    )
    assert [record["c"] for record in table] == [record["c"] for record in records]
    assert [dict(record) for record in operation.undo(table, named(seed))] == records


@pytest.mark.parametrize("operation", [Permutation(fields=("age",)), Rearrangement()], ids=ids)
def test_an_order_of_one_record_is_refused_because_it_would_hide_nothing(operation: TableOperation) -> None:
    for call in (operation.apply, operation.undo):
        with pytest.raises(RequestError, match="at least two"):
            call((PATIENT,), SECRET)


# ---------------------------------------------------------------------------------------------- counts


def counted(records: list[dict[str, Any]], fields: tuple[str, ...], k: int) -> Counts:
    return Statistics(fields=fields, k=k).apply(tuple(records), SECRET)


def test_groups_below_k_are_left_out_and_not_counted_elsewhere() -> None:
    records = [
        {"sex": sex, "band": band}
        for sex, band, size in (("F", "60-64", 5), ("M", "60-64", 4), ("M", None, 7))
        for _ in range(size)
    ]
    counts = counted(records, ("sex", "band"), 5)
    assert counts == Counts(("sex", "band"), ((("F", "60-64"), 5), (("M", None), 7)), complete=False)
    assert counted(records, ("sex", "band"), 4).complete
    assert Statistics(fields=("sex", "band")).history() == "statistics: counts of sex, band, groups under 5 left out"


@given(records=tables, k=st.integers(2, 5))
@settings(deadline=None)
def test_counts_are_those_of_the_records_and_none_is_below_k(records: list[dict[str, Any]], k: int) -> None:
    counts = counted(records, ("a", "b"), k)
    exact = Counter((type(r["a"]), repr(r["a"]), type(r["b"]), repr(r["b"])) for r in records)
    # -0.0 and 0.0 are equal but written differently; leave such tables to the other assertion.
    if not any(repr(record[field]) == "-0.0" for record in records for field in ("a", "b")):
        shown = {(type(a), repr(a), type(b), repr(b)): size for (a, b), size in counts.groups}
        assert shown == {key: size for key, size in exact.items() if size >= k}
        assert counts.complete == (min(exact.values()) >= k)
    assert all(size >= k for _, size in counts.groups)


def test_the_order_of_the_groups_does_not_tell_that_of_the_records() -> None:
    records = [{"sex": sex} for sex in "MMFF"]
    assert counted(records, ("sex",), 2) == counted(records[::-1], ("sex",), 2)


def test_k_anonymity_by_hand() -> None:
    # Sweeney 2002, figure 2: k = 2 over race, birth, gender and zip; the problem column is no quasi-identifier.
    rows = """Black 1965 m 0214* short breath|Black 1965 m 0214* chest pain|Black 1965 f 0213* hypertension
Black 1965 f 0213* hypertension|Black 1964 f 0213* obesity|Black 1964 f 0213* chest pain|White 1964 m 0213* chest pain
White 1964 m 0213* obesity|White 1964 m 0213* short breath|White 1967 m 0213* chest pain|White 1967 m 0213* chest pain"""
    names = ("race", "birth", "gender", "zip", "problem")
    records = [
        dict(zip(names, row.split(" ", 4), strict=True)) for line in rows.splitlines() for row in line.split("|")
    ]
    assert len(records) == 11
    assert k_anonymity(records, names[:4]) == 2
    assert k_anonymity(records, names) == 1
    assert k_anonymity(records, ("race",)) == 5


@given(records=tables)
@settings(deadline=None)
def test_another_quasi_identifier_never_makes_the_smallest_group_larger(records: list[dict[str, Any]]) -> None:
    one_, two, three = (k_anonymity(records, fields) for fields in (("a",), ("a", "b"), ("a", "b", "c")))
    assert len(records) >= one_ >= two >= three >= 1


def test_entries_of_different_types_count_as_different_and_nan_as_one_value() -> None:
    assert k_anonymity([{"a": 1}, {"a": 1.0}], ("a",)) == 1
    assert k_anonymity([{"a": 1}, {"a": True}], ("a",)) == 1
    assert k_anonymity([{"a": float("nan")}, {"a": float("nan")}], ("a",)) == 2
    assert k_anonymity([{"a": float("nan")}, {"a": "nan"}], ("a",)) == 1
    assert counted([{"a": 1}] * 2 + [{"a": 1.0}] * 3, ("a",), 2).groups == (((1.0,), 3), ((1,), 2))


@pytest.mark.parametrize(
    ("records", "fields"), [([], ("age",)), (PATIENTS, ()), (PATIENTS, "age"), (PATIENTS, ("height",))]
)
def test_k_anonymity_of_nothing_or_over_nothing_is_refused(records: list[Record], fields: Any) -> None:
    with pytest.raises(RequestError):
        k_anonymity(records, fields)
