"""The people of a simulated hospital: its staff, its patients' accounts, and an index of what it holds of each patient.

All of them are made up; only the codes of the patients are the release's. They give a run something to ask for, so that the
rules of annexes A.1 and A.2 have cases: two treatment groups and a department without, superiors and juniors, special and
infectious diseases, findings that patients are not shown, guardians without documents. The records themselves have no content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
import tomli_w

from fedprivseg.core.files import write_text
from fedprivseg.core.records import Subject
from fedprivseg.core.runfolder import SiteFolder
from fedprivseg.core.seeds import numpy_generator
from fedprivseg.governance.access.record_index import SELF, Account, Entry, written
from fedprivseg.governance.access.roles import Action, Granularity, Kinship, Title

GROUPS = ("heart-failure", "rhythm")
DEPARTMENT, UNDIVIDED = "cardiology", "radiology"
KEEP = (Action.SAVE, Action.COPY, Action.PRINT, Action.DOWNLOAD)

TRAITS = MappingProxyType({"special": 0.1, "infectious": 0.1, "local-ct": 0.3, "operated": 0.4, "published": 0.1})
"""How large a share of the patients has what the names say, and one of them at least; no counts of real hospitals."""

VERIFIED, LONGER, GUARDED, BOUND, AUTHORISED = 0.9, 0.15, 0.3, 0.85, 0.7
"""Shares of accounts with a proved identity, with a longer window, of patients with a guardian or child, and of these with
documents and with the patient's authorisation."""

OLDEST_DAYS = 200


def people(
    home: SiteFolder, subjects: Sequence[Subject], data: str, special: Sequence[str], today: date, seed: int
) -> None:
    """Write the staff, accounts and records of a hospital, as far as they are not there.

    Args:
        home: its folder.
        subjects: its patients.
        data: the type of image that they have.
        special: pathologies that it treats as special diseases.
        today: the day on which the newest report was written.
        seed: of all draws.
    """
    if not home.staff.exists():
        write_text(home.staff, tomli_w.dumps({"staff": list(_staff())}))
    chosen = sorted(subjects, key=lambda one: one.code)
    if not home.records.exists():
        draw = numpy_generator(seed, home.name, "records")
        traits = {name: _chosen(draw, len(chosen), share) for name, share in TRAITS.items()}
        entries: list[Entry] = []
        for place, one in enumerate(chosen):
            has = frozenset(name for name, places in traits.items() if place in places)
            has |= {"special"} if one.attributes.get("disease") in special else frozenset()
            entries += _entries(one, data, has, today, draw)
        write_text(home.records, written(entries))
    if not home.accounts.exists():
        draw = numpy_generator(seed, home.name, "accounts")
        cared = _chosen(draw, len(chosen), GUARDED, least=2)
        accounts = [each for place, one in enumerate(chosen) for each in _accounts(one.code, place, cared, draw)]
        write_text(home.accounts, written(accounts))


def _staff() -> Iterator[dict[str, Any]]:
    """Superiors first."""
    yield _member("chief", Title.CHIEF, DEPARTMENT, rights=KEEP)
    for group in GROUPS:
        yield _member(f"attending-{group}", Title.ATTENDING, DEPARTMENT, group, "chief", KEEP)
        for number in (1, 2):
            above = f"attending-{group}"
            yield _member(f"resident-{group}-{number}", Title.RESIDENT, DEPARTMENT, group, above, (Action.PRINT,))
            yield _member(f"nurse-{group}-{number}", Title.NURSE, DEPARTMENT, group)
    yield _member("radiologist", Title.ATTENDING, UNDIVIDED, rights=KEEP)
    yield _member("radiology-resident", Title.RESIDENT, UNDIVIDED, superior="radiologist")
    yield _member("radiology-nurse", Title.NURSE, UNDIVIDED)
    for number in (1, 2):
        yield _member(f"researcher-{number}", Title.RESEARCHER, "research")
        yield _member(f"data-manager-{number}", Title.DATA_MANAGER, "records-office")


def _member(
    name: str, title: Title, department: str, group: str = "", superior: str = "", rights: Sequence[Action] = ()
) -> dict[str, Any]:
    member: dict[str, Any] = {"id": name, "title": title.value, "department": department}
    member |= {"groups": [group]} if group else {}
    member |= {"superior": superior} if superior else {}
    return member | ({"rights": [right.value for right in rights]} if rights else {})


def _chosen(draw: np.random.Generator, count: int, share: float, least: int = 1) -> list[int]:
    """Places of a share of `count`, in the order drawn."""
    return [int(place) for place in draw.permutation(count)[: max(least, round(share * count))]]


def _entries(
    subject: Subject, data: str, has: frozenset[str], today: date, draw: np.random.Generator
) -> Iterator[Entry]:
    """What is held of one patient, from the names of tests to the images (A.1.1), with what studies may use. has: traits."""
    group, number = GROUPS[draw.integers(len(GROUPS))], int(draw.integers(1, 3))
    doctor = f"attending-{group}" if draw.random() < 0.7 else f"resident-{group}-{number}"
    common: dict[str, Any] = {
        "subject": subject.code,
        "department": DEPARTMENT,
        "source": "care",
        "group": group,
        "doctors": (doctor,),
    }
    common |= {
        "treating": (f"nurse-{group}-{number}", "radiologist"),
        "attending": (f"attending-{group}", f"nurse-{group}-{number}"),
        "infectious": "infectious" in has,
        "special": "special" in has,
    }
    reported = today - timedelta(days=int(draw.integers(0, OLDEST_DAYS + 1)))

    def entry(item: str, granularity: Granularity, level: int, **changes: Any) -> Entry:
        return Entry.model_validate(
            {**common, "item": item, "granularity": granularity, "level": level, "reported": reported, **changes}
        )

    yield entry("test-names", Granularity.DEFAULT, 4)
    yield entry("imaging-report", Granularity.INFORMED, 4)
    yield entry("discharge-summary", Granularity.INFORMED, 4)
    if "local-ct" in has:
        yield entry("local-ct-report", Granularity.INFORMED, 4, sensitive=True)
    if "operated" in has:
        yield entry("operation-record", Granularity.INFORMED, 4)
    # Level 5: detailed images of special diseases (5.5).
    yield entry("inpatient-record", Granularity.AUTHORISED, 4)
    yield entry("images", Granularity.AUTHORISED, 5 if "special" in has else 4, source=data)
    plain = {"group": "", "treating": (), "attending": (), "infectious": False, "special": False}
    undivided = {"department": UNDIVIDED, "doctors": ("radiologist",)}
    yield entry("examination-list", Granularity.DEFAULT, 3, **plain, **undivided)
    freed = {**plain, "doctors": (), "deidentified": True, "source": data}
    yield entry("study-images", Granularity.AUTHORISED, 3, **freed)
    yield entry("study-measurements", Granularity.INFORMED, 2, **freed)
    if "published" in has:
        yield entry("published-case", Granularity.INFORMED, 1, **freed)


def _accounts(code: str, place: int, cared: Sequence[int], draw: np.random.Generator) -> Iterator[Account]:
    """The patient's own account, and for those in `cared` one of a guardian and of a child in turn."""
    number = place + 1
    verified, longer, bound, authorised = (draw.random() < share for share in (VERIFIED, LONGER, BOUND, AUTHORISED))
    common = {"patients": (code,), "verified": verified, "rights": KEEP if draw.random() < 0.8 else ()}
    window = 365 if longer else 0
    yield Account.model_validate({**common, "id": f"patient-{number:03}", "kinship": SELF, "window_days": window})
    if place in cared:
        kinship = list(Kinship)[cared.index(place) % 2]
        cared_for = {"bound": bound, "authorised": authorised, "kinship": kinship.value}
        yield Account.model_validate({**common, **cared_for, "id": f"{kinship}-{number:03}"})
