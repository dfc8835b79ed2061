"""A small hospital, and cases of access in it: who asks to do what with which record, whether it is allowed, why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedprivseg.governance.access import authorizer as module
from fedprivseg.governance.access.authorizer import CedarAuthorizer, Ruling
from fedprivseg.governance.access.roles import (
    Action,
    Context,
    Granularity,
    Guardian,
    Kinship,
    Patient,
    Principal,
    Project,
    Purpose,
    Record,
    Request,
    Staff,
    Title,
)

NOW = datetime(2024, 6, 3, 9, 0, tzinfo=UTC)
VIEW, QUERY, SAVE, COPY, PRINT, DOWNLOAD, RESEARCH, TRAIN, RELEASE = Action
KEEP = frozenset({SAVE, COPY, PRINT, DOWNLOAD})
STUDY = frozenset({RESEARCH, TRAIN, RELEASE})
DEFAULT, INFORMED, AUTHORISED = Granularity


def clock() -> datetime:
    return NOW


AUTHORIZER = CedarAuthorizer(clock=clock, limit_s=60)  # what takes long is tested below, not by a busy machine


# ---------------------------------------------------------------------------------------------- a small hospital
#
# Cardiology has the groups 'heart-failure' and 'rhythm'; surgery has a group that is also called 'heart-failure'; neurology
# has no groups. HEAD is above SENIOR, SENIOR above DOCTOR, DOCTOR above RESIDENT. DOCTOR is in charge of the patient.

HEAD = Staff("head", Title.CHIEF, "cardiology")
SENIOR = Staff("senior", Title.ATTENDING, "cardiology", frozenset({"rhythm"}), HEAD)
DOCTOR = Staff("doctor", Title.ATTENDING, "cardiology", frozenset({"heart-failure"}), SENIOR, rights=KEEP)
RESIDENT = Staff("resident", Title.RESIDENT, "cardiology", frozenset({"heart-failure"}), DOCTOR)
STUDENT = Staff("student", Title.RESIDENT, "cardiology", frozenset(), RESIDENT)
CHIEF = Staff("chief", Title.CHIEF, "cardiology", frozenset({"heart-failure"}), HEAD, rights=KEEP)
COLLEAGUE = Staff("colleague", Title.ATTENDING, "cardiology", frozenset({"heart-failure"}), HEAD, rights=KEEP)
OUTSIDER = Staff("outsider", Title.ATTENDING, "cardiology", frozenset({"rhythm"}), HEAD, rights=KEEP)
UNDER_CHIEF = Staff("under-chief", Title.ATTENDING, "cardiology", frozenset(), CHIEF)  # whose superior is in the group
NAMESAKE = Staff("namesake", Title.ATTENDING, "surgery", frozenset({"heart-failure"}))
CONSULTANT = Staff("consultant", Title.ATTENDING, "neurology")
NEUROLOGIST = Staff("neurologist", Title.ATTENDING, "neurology")
NEURO_NURSE = Staff("neuro-nurse", Title.NURSE, "neurology")
NURSE = Staff("nurse", Title.NURSE, "cardiology", frozenset({"heart-failure"}), rights=KEEP)
NAMED_NURSE = Staff("named-nurse", Title.NURSE, "cardiology", rights=KEEP)
WARD_NURSE = Staff("ward-nurse", Title.NURSE, "cardiology")

HEARTS = Project("hearts", frozenset({"cine"}), 3, frozenset({DEFAULT, INFORMED}), STUDY, NOW + timedelta(days=1))
RESEARCHER = Staff("researcher", Title.RESEARCHER, "imaging", projects=frozenset({HEARTS}), rights=KEEP)
NO_PROJECT = replace(RESEARCHER, projects=frozenset())
MANAGER = Staff("manager", Title.DATA_MANAGER, "imaging", projects=frozenset({HEARTS}))
RESEARCHING_DOCTOR = replace(DOCTOR, projects=frozenset({HEARTS}))
RESEARCHING_NURSE = replace(NURSE, projects=frozenset({HEARTS}))
JUNIOR_RESEARCHER = Staff("junior", Title.RESEARCHER, "imaging", superior=RESEARCHER)

PATIENT = Patient("p1", verified=True, rights=KEEP)
OTHER = Patient("p2", verified=True, rights=KEEP)
GUARDIAN = Guardian("g1", Kinship.GUARDIAN, frozenset({"p1"}), verified=True, bound=True, rights=KEEP)
CHILD = Guardian("c1", Kinship.CHILD, frozenset({"p1"}), verified=True, bound=True, authorised=True, rights=KEEP)


def with_project(**changes: Any) -> Staff:
    return replace(RESEARCHER, projects=frozenset({replace(HEARTS, **changes)}))


RECORD = Record(
    "r1",
    "p1",
    "cardiology",
    "cine",
    4,
    DEFAULT,
    10,
    doctors=(DOCTOR,),
    group="heart-failure",
    treating=frozenset({"consultant", "named-nurse"}),
    attending=frozenset({"doctor", "named-nurse", "resident"}),
)


def rec(granularity: Granularity = DEFAULT, **changes: Any) -> Record:
    """A record of level 4 of the patient of DOCTOR, 10 days old."""
    return replace(RECORD, granularity=granularity, **changes)


def data(level: int = 3, **changes: Any) -> Record:
    """De-identified data of the collection that HEARTS names."""
    return replace(RECORD, level=level, deidentified=True, **changes)


CARE = Context(NOW, NOW - timedelta(hours=1), Purpose.TREATMENT, encrypted=True, integrity=True)
STRICT = replace(CARE, second_factor=True, controlled_place=True)
TOLD = replace(CARE, notified=True)
OWN = replace(CARE, purpose=Purpose.OWN_CARE)
OWN_TOLD = replace(OWN, notified=True)
STUDYING = replace(CARE, purpose=Purpose.RESEARCH, project="hearts")


def care(**changes: Any) -> Context:
    return replace(CARE, **changes)


def own(**changes: Any) -> Context:
    return replace(OWN, **changes)


def study(**changes: Any) -> Context:
    return replace(STUDYING, **changes)


YES, NO = True, False
NOBODY = ""  # no policy decided: refused because nothing permits it


class Row(NamedTuple):
    """One case: what it is, who asks to do what with which record when, whether that is allowed, and all that decide."""

    name: str
    principal: Principal
    action: Action
    record: Record
    context: Context
    allowed: bool
    policies: str


def names(ruling: Ruling) -> set[str]:
    return {policy.id for policy in ruling.policies}


PERMIT_ALL = """
@id("hospital.all") @clause("house rule 1") @says("Everybody may do everything.")
permit (principal, action, resource);
"""
FORBID_ALL = """
@id("hospital.none") @clause("house rule 2") @says("Nobody may do anything.")
forbid (principal, action, resource);
"""

SAID = '@id("hospital.x") @clause("y") @says("z.") '
NIGHT = """
@id("hospital.no-prints") @clause("house rule 3") @says("Nurses and residents of this house print nothing.")
forbid (principal is Staff, action == Action::"print", resource)
when { principal.title in [Title::"nurse", Title::"resident"] };
@id("hospital.no-training") @clause("house rule 4") @says("Nobody trains on data of this house above level 2.")
forbid (principal, action == Action::"train", resource) when { resource.level > 2 };
"""


def house(tmp_path: Path, text: str | bytes, name: str = "house.cedar") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def with_permits(folder: Path, text: str = PERMIT_ALL) -> CedarAuthorizer:
    """The package's policies, and one among them that permits what `text` says: what a mistake in a permit could do."""
    (folder / "cedar").mkdir()
    for entry in (resources.files("fedprivseg.governance.access") / "cedar").iterdir():
        (folder / "cedar" / entry.name).write_text(entry.read_text(encoding="utf-8"))
    (folder / "cedar" / "lax.cedar").write_text(text.replace("hospital.", "lax."))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.resources, "files", lambda package: folder)
        return CedarAuthorizer(clock=clock, limit_s=60)


# fmt: off
TREATMENT = (
    # A.1.1: three degrees of detail, by title, for patients in one's charge
    Row("own patient, names of tests", DOCTOR, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("own patient, reports", DOCTOR, VIEW, rec(INFORMED), CARE, YES, "treatment.informed"),
    Row("own patient, details", DOCTOR, VIEW, rec(AUTHORISED), CARE, YES, "treatment.authorised"),
    Row("group's patient, names of tests", COLLEAGUE, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("group's patient, reports", COLLEAGUE, VIEW, rec(INFORMED), CARE, YES, "treatment.informed"),
    Row("group's patient, details", COLLEAGUE, VIEW, rec(AUTHORISED), CARE, YES, "treatment.authorised"),
    Row("chief of the group, names of tests", CHIEF, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("chief of the group, reports", CHIEF, VIEW, rec(INFORMED), CARE, YES, "treatment.informed"),
    Row("chief of the group, details", CHIEF, VIEW, rec(AUTHORISED), CARE, YES, "treatment.authorised"),
    Row("resident of the group, names of tests", RESIDENT, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("resident of the group, reports", RESIDENT, VIEW, rec(INFORMED), CARE, YES, "treatment.informed"),
    Row("resident of the group, details", RESIDENT, VIEW, rec(AUTHORISED), CARE, NO, NOBODY),
    Row("resident in charge, details", RESIDENT, VIEW, rec(AUTHORISED, doctors=(RESIDENT,)), CARE, YES,
        "treatment.resident-authorised"),
    Row("nurse of the group, names of tests", NURSE, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("nurse of the group, reports", NURSE, VIEW, rec(INFORMED), CARE, NO, NOBODY),
    Row("nurse of the group, details", NURSE, VIEW, rec(AUTHORISED), CARE, NO, NOBODY),
    Row("nurse by name, names of tests", NAMED_NURSE, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("nurse by name, reports", NAMED_NURSE, VIEW, rec(INFORMED), CARE, YES, "treatment.nurse-informed"),
    Row("nurse by name, details", NAMED_NURSE, VIEW, rec(AUTHORISED), CARE, NO, NOBODY),
    Row("nurse of the ward, not named", WARD_NURSE, VIEW, rec(), CARE, NO, "level.4-treating"),
    Row("nurse of the ward, level 3", WARD_NURSE, VIEW, rec(level=3), CARE, NO, NOBODY),
    Row("consultant, names of tests", CONSULTANT, VIEW, rec(), CARE, YES, "treatment.default"),
    Row("consultant, reports", CONSULTANT, VIEW, rec(INFORMED), CARE, YES, "treatment.informed"),
    Row("consultant, details", CONSULTANT, VIEW, rec(AUTHORISED), CARE, NO, NOBODY),
    Row("consultant no longer named", CONSULTANT, VIEW, rec(treating=frozenset()), CARE, NO, "level.4-treating"),
    # A.1.2: department, title, group
    Row("another group of the department", OUTSIDER, VIEW, rec(), CARE, NO, "level.4-treating"),
    Row("another group, level 3", OUTSIDER, VIEW, rec(level=3), CARE, NO, NOBODY),
    Row("another group, level 2", OUTSIDER, VIEW, rec(level=2), CARE, NO, NOBODY),
    Row("a group of that name elsewhere", NAMESAKE, VIEW, rec(), CARE, NO, "level.4-treating"),
    Row("a group of that name elsewhere, level 3", NAMESAKE, VIEW, rec(INFORMED, level=3), CARE, NO, NOBODY),
    Row("no group of the department", HEAD, VIEW, rec(doctors=(CHIEF,)), CARE, YES, "treatment.superior"),
    Row("another department", NEUROLOGIST, VIEW, rec(INFORMED), CARE, NO, "level.4-treating"),
    Row("undivided department, names of tests", NEUROLOGIST, VIEW, rec(level=3, department="neurology", group=""),
        CARE, YES, "treatment.undivided"),
    Row("undivided department, nurse", NEURO_NURSE, VIEW, rec(level=3, department="neurology", group=""), CARE, YES,
        "treatment.undivided"),
    Row("undivided department, reports", NEUROLOGIST, VIEW, rec(INFORMED, level=3, department="neurology", group=""),
        CARE, NO, NOBODY),
    Row("undivided department, level 4", NEUROLOGIST, VIEW, rec(department="neurology", group=""), CARE, NO,
        "level.4-treating"),
    Row("undivided department, another one", OUTSIDER, VIEW, rec(level=3, department="neurology", group=""), CARE, NO, NOBODY),
    Row("the department has groups after all", NEUROLOGIST, VIEW, rec(level=3, department="neurology",
        group="stroke"), CARE, NO, NOBODY),
    Row("undivided department, researcher of it", replace(RESEARCHER, department="neurology"), VIEW, rec(level=3,
        department="neurology", group=""), CARE, NO, NOBODY),
    # A.1.3: charge and superiors
    Row("superior, names of tests", SENIOR, VIEW, rec(), CARE, YES, "treatment.superior"),
    Row("superior, reports", SENIOR, VIEW, rec(INFORMED), CARE, YES, "treatment.superior"),
    Row("superior, details", SENIOR, VIEW, rec(AUTHORISED), CARE, YES, "treatment.superior"),
    Row("superior of the superior", HEAD, VIEW, rec(AUTHORISED), CARE, YES, "treatment.superior"),
    Row("three above", HEAD, VIEW, rec(AUTHORISED, doctors=(RESIDENT,)), CARE, YES, "treatment.superior"),
    Row("four above", HEAD, VIEW, rec(AUTHORISED, doctors=(STUDENT,)), CARE, YES, "treatment.superior"),
    Row("superior and in the group", DOCTOR, VIEW, rec(doctors=(RESIDENT,)), CARE, YES, "treatment.default treatment.superior"),
    Row("of the second doctor in charge", SENIOR, VIEW, rec(doctors=(CHIEF, DOCTOR)), CARE, YES, "treatment.superior"),
    Row("a junior does not see upwards", STUDENT, VIEW, rec(), CARE, NO, "level.4-treating"),
    Row("a junior, level 3", STUDENT, VIEW, rec(level=3), CARE, NO, NOBODY),
    Row("a resident is no superior in this sense", RESIDENT, VIEW, rec(group="rhythm", doctors=(STUDENT,)), CARE, NO, NOBODY),
    Row("beside, under the same head", OUTSIDER, VIEW, rec(AUTHORISED), CARE, NO, "level.4-treating"),
    Row("superior of others only", SENIOR, VIEW, rec(doctors=(CHIEF,)), CARE, NO, "level.4-treating"),
    Row("no doctor in charge, no superior", SENIOR, VIEW, rec(doctors=()), CARE, NO, "level.4-treating"),
    Row("no doctor in charge, the group", COLLEAGUE, VIEW, rec(doctors=()), CARE, YES, "treatment.default"),
    Row("the superior's group is not one's own", UNDER_CHIEF, VIEW, rec(), CARE, NO, "level.4-treating"),
    Row("the superior's group, level 3", UNDER_CHIEF, VIEW, rec(level=3), CARE, NO, NOBODY),
    Row("superior, as a nurse", replace(NURSE, groups=frozenset()), VIEW, rec(), CARE, NO, "level.4-treating"),
    Row("own patient, for research", DOCTOR, VIEW, rec(), care(purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("own patient, as if own care", DOCTOR, VIEW, rec(), care(purpose=Purpose.OWN_CARE), NO, NOBODY),
    Row("superior, for research", SENIOR, VIEW, rec(), care(purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("own patient, as a query", DOCTOR, QUERY, rec(), CARE, NO, NOBODY),
    Row("a data manager sees no record", MANAGER, VIEW, rec(level=3), CARE, NO, NOBODY),
    Row("a researcher sees no record", RESEARCHER, VIEW, rec(level=3), CARE, NO, NOBODY),
    Row("a researcher sees no data either", RESEARCHER, VIEW, data(2), STUDYING, NO, NOBODY),
    Row("a patient does not view as staff do", PATIENT, VIEW, rec(), CARE, NO, NOBODY),
)

DISEASES = (
    # A.1.3-a: special diseases by title
    Row("special, chief, details", CHIEF, VIEW, rec(AUTHORISED, special=True), CARE, YES, "treatment.authorised"),
    Row("special, attending in charge", DOCTOR, VIEW, rec(AUTHORISED, special=True), CARE, YES, "treatment.authorised"),
    Row("special, attending of the group", COLLEAGUE, VIEW, rec(AUTHORISED, special=True), CARE, NO, "special.attending"),
    Row("special, attending, reports", COLLEAGUE, VIEW, rec(INFORMED, special=True), CARE, YES, "treatment.informed"),
    Row("special, attending, names of tests", COLLEAGUE, VIEW, rec(special=True), CARE, YES, "treatment.default"),
    Row("special, attending who attends", COLLEAGUE, VIEW, rec(AUTHORISED, special=True,
        attending=frozenset({"colleague"})), CARE, YES, "treatment.authorised"),
    Row("special, attending superior", SENIOR, VIEW, rec(AUTHORISED, special=True), CARE, NO, "special.attending"),
    Row("special, attending superior, reports", SENIOR, VIEW, rec(INFORMED, special=True), CARE, YES, "treatment.superior"),
    Row("special, chief superior", HEAD, VIEW, rec(AUTHORISED, special=True), CARE, YES, "treatment.superior"),
    Row("special, resident, names of tests", RESIDENT, VIEW, rec(special=True), CARE, YES, "treatment.default"),
    Row("special, resident, reports", RESIDENT, VIEW, rec(INFORMED, special=True), CARE, NO, "special.resident"),
    Row("special, resident in charge, reports", RESIDENT, VIEW, rec(INFORMED, special=True, doctors=(RESIDENT,)),
        CARE, YES, "treatment.informed"),
    Row("special, resident in charge, details", RESIDENT, VIEW, rec(AUTHORISED, special=True, doctors=(RESIDENT,)),
        CARE, NO, "special.resident"),
    Row("special, nurse by name, names of tests", NAMED_NURSE, VIEW, rec(special=True), CARE, YES, "treatment.default"),
    Row("special, nurse by name, reports", NAMED_NURSE, VIEW, rec(INFORMED, special=True), CARE, NO, "special.nurse"),
    Row("special, level 3 too", RESIDENT, VIEW, rec(INFORMED, special=True, level=3), CARE, NO, "special.resident"),
    Row("special, chief keeps", CHIEF, SAVE, rec(special=True, doctors=(CHIEF,)), TOLD, YES, "treatment.keep"),
    Row("special, attending does not keep", DOCTOR, SAVE, rec(special=True), TOLD, NO, "special.keep"),
    Row("special, attending does not print", DOCTOR, PRINT, rec(INFORMED, special=True), TOLD, NO, "special.keep"),
    # A.1.3-b: infectious diseases are disclosed to those who treat
    Row("infectious, nurse of the group, names of tests", NURSE, VIEW, rec(infectious=True), CARE, YES,
        "treatment.default treatment.infectious"),
    Row("infectious, nurse of the group", NURSE, VIEW, rec(INFORMED, infectious=True), CARE, YES, "treatment.infectious"),
    Row("infectious, nurse by name", NAMED_NURSE, VIEW, rec(INFORMED, infectious=True), CARE, YES,
        "treatment.nurse-informed treatment.infectious"),
    Row("infectious, consultant", CONSULTANT, VIEW, rec(INFORMED, infectious=True), CARE, YES,
        "treatment.informed treatment.infectious"),
    Row("infectious, nurse, details", NURSE, VIEW, rec(AUTHORISED, infectious=True), CARE, NO, NOBODY),
    Row("infectious, nurse who does not treat", WARD_NURSE, VIEW, rec(infectious=True), CARE, NO, "level.4-treating"),
    Row("infectious, another group", OUTSIDER, VIEW, rec(infectious=True), CARE, NO, "level.4-treating"),
    Row("infectious, another group, level 3", OUTSIDER, VIEW, rec(infectious=True, level=3), CARE, NO, NOBODY),
    Row("infectious, a group of that name", NAMESAKE, VIEW, rec(infectious=True, level=3), CARE, NO, NOBODY),
    Row("infectious, for research", NURSE, VIEW, rec(INFORMED, infectious=True), care(purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("infectious, researcher", RESEARCHER, VIEW, rec(infectious=True, level=3), CARE, NO, NOBODY),
    Row("infectious and special, resident", RESIDENT, VIEW, rec(INFORMED, special=True, infectious=True), CARE, YES,
        "treatment.informed treatment.infectious"),
    Row("infectious and special, nurse", NURSE, VIEW, rec(INFORMED, special=True, infectious=True), CARE, YES,
        "treatment.infectious"),
    Row("infectious and special, nurse, details", NURSE, VIEW, rec(AUTHORISED, special=True, infectious=True), CARE,
        NO, "special.nurse"),
    Row("infectious, the patient's own view is no view", PATIENT, VIEW, rec(infectious=True), CARE, NO, NOBODY),
)

LEVELS = (
    # 5.5, level 1
    Row("level 1, doctor of elsewhere", NAMESAKE, VIEW, rec(level=1), CARE, YES, "level.1-public"),
    Row("level 1, researcher without project", NO_PROJECT, TRAIN, rec(level=1), care(), YES, "level.1-public"),
    Row("level 1, patient of another record", OTHER, QUERY, rec(level=1), OWN, YES, "level.1-public"),
    Row("level 1, unverified patient", replace(OTHER, verified=False), QUERY, rec(level=1), OWN, YES, "level.1-public"),
    Row("level 1, saved without right or notice", WARD_NURSE, SAVE, rec(level=1), CARE, YES, "level.1-public"),
    Row("level 1, special", RESIDENT, VIEW, rec(AUTHORISED, level=1, special=True), CARE, YES, "level.1-public"),
    Row("level 1, unauthenticated", NAMESAKE, VIEW, rec(level=1), care(authenticated=None), NO, "trust.unauthenticated"),
    Row("level 1, no purpose", NAMESAKE, VIEW, rec(level=1), care(purpose=None), NO, "trust.purpose"),
    Row("level 1, in clear", NAMESAKE, VIEW, rec(level=1), care(encrypted=False), NO, "channel.encrypted"),
    # level 2
    Row("level 2, doctor with approval", RESEARCHING_DOCTOR, RESEARCH, data(2), STUDYING, YES, "research.level-2"),
    Row("level 2, doctor without approval", DOCTOR, RESEARCH, data(2), STUDYING, NO, "project.none"),
    Row("level 2, researcher", RESEARCHER, TRAIN, data(2), STUDYING, YES, "research.level-2"),
    Row("level 2, released by the researcher", RESEARCHER, RELEASE, data(2), STUDYING, YES, "research.release-2"),
    Row("level 2, nurse", RESEARCHING_NURSE, RESEARCH, data(2), STUDYING, NO, NOBODY),
    Row("level 2, data manager trains nothing", MANAGER, TRAIN, data(2), STUDYING, NO, NOBODY),
    Row("level 2, data manager releases no level 2", MANAGER, RELEASE, data(2), STUDYING, NO, NOBODY),
    # level 3
    Row("level 3, of the project group", RESEARCHER, RESEARCH, data(3), STUDYING, YES, "research.level-3"),
    Row("level 3, trained on", RESEARCHER, TRAIN, data(3), STUDYING, YES, "research.level-3"),
    Row("level 3, doctor of the group", RESEARCHING_DOCTOR, TRAIN, data(3), STUDYING, YES, "research.level-3"),
    Row("level 3, not of the group", NO_PROJECT, RESEARCH, data(3), STUDYING, NO, "project.none"),
    Row("level 3, a superior's project", JUNIOR_RESEARCHER, RESEARCH, data(3), STUDYING, NO, "project.none"),
    Row("level 3, not released by the researcher", RESEARCHER, RELEASE, data(3), STUDYING, NO, NOBODY),
    Row("level 3, released by the data manager", MANAGER, RELEASE, data(3), STUDYING, YES, "research.release-3"),
    Row("level 3, data manager outside the group", replace(MANAGER, projects=frozenset()), RELEASE, data(3),
        STUDYING, NO, "project.none"),
    # level 4
    Row("level 4, no research", RESEARCHING_DOCTOR, RESEARCH, data(4), STUDYING, NO, "level.4-study"),
    Row("level 4, no training", RESEARCHING_DOCTOR, TRAIN, data(4), STUDYING, NO, "level.4-study"),
    Row("level 4, researcher", RESEARCHER, RESEARCH, data(4), STUDYING, NO, "level.4-treating level.4-roles level.4-study"),
    Row("level 4, researcher named as treating", RESEARCHER, VIEW, rec(treating=frozenset({"researcher"})), CARE, NO,
        "level.4-roles"),
    Row("level 4, data manager named as treating", MANAGER, VIEW, rec(treating=frozenset({"manager"})), CARE, NO,
        "level.4-roles"),
    # level 5
    Row("level 5, attending doctor", DOCTOR, VIEW, rec(AUTHORISED, level=5), STRICT, YES, "treatment.level-5"),
    Row("level 5, attending nurse", NAMED_NURSE, VIEW, rec(AUTHORISED, level=5), STRICT, YES, "treatment.level-5"),
    Row("level 5, attending nurse, special", NAMED_NURSE, VIEW, rec(INFORMED, level=5, special=True), STRICT, NO,
        "special.nurse"),
    Row("level 5, attending doctor, special", DOCTOR, VIEW, rec(AUTHORISED, level=5, special=True), STRICT, YES,
        "treatment.level-5"),
    Row("level 5, resident, though named", RESIDENT, VIEW, rec(level=5), STRICT, NO, NOBODY),
    Row("level 5, in charge, not attending", DOCTOR, VIEW, rec(level=5, attending=frozenset()), STRICT, NO,
        "level.5-attending"),
    Row("level 5, of the group", COLLEAGUE, VIEW, rec(level=5), STRICT, NO, "level.5-attending"),
    Row("level 5, chief of the group", CHIEF, VIEW, rec(level=5), STRICT, NO, "level.5-attending"),
    Row("level 5, superior", HEAD, VIEW, rec(level=5), STRICT, NO, "level.5-attending"),
    Row("level 5, consultant", CONSULTANT, VIEW, rec(level=5), STRICT, NO, "level.5-attending"),
    Row("level 5, no second factor", DOCTOR, VIEW, rec(level=5), care(controlled_place=True), NO, "level.5-second-factor"),
    Row("level 5, any workstation", DOCTOR, VIEW, rec(level=5), care(second_factor=True), NO, "level.5-place"),
    Row("level 5, for research", DOCTOR, VIEW, rec(level=5), replace(STRICT, purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("level 5, saved", DOCTOR, SAVE, rec(level=5), replace(STRICT, notified=True), NO, "level.5-keep"),
    Row("level 5, printed", DOCTOR, PRINT, rec(level=5), replace(STRICT, notified=True), NO, "level.5-keep"),
    Row("level 5, the patient", PATIENT, QUERY, rec(level=5), replace(STRICT, purpose=Purpose.OWN_CARE), NO,
        "level.5-attending"),
    Row("level 5, researcher named as attending", RESEARCHER, VIEW, rec(level=5,
        attending=frozenset({"researcher"})), STRICT, NO, "level.4-roles"),
    Row("level 5, trained on by who attends", RESEARCHING_DOCTOR, TRAIN, data(5), replace(STRICT,
        purpose=Purpose.RESEARCH, project="hearts"), NO, "level.4-study"),
)

PERSONS = (
    # A.2.1: own queries
    Row("own names of tests", PATIENT, QUERY, rec(), OWN, YES, "person.query"),
    Row("own reports", PATIENT, QUERY, rec(INFORMED), OWN, YES, "person.query"),
    Row("own reports, level 3", PATIENT, QUERY, rec(INFORMED, level=3), OWN, YES, "person.query"),
    Row("own details", PATIENT, QUERY, rec(AUTHORISED), OWN, NO, NOBODY),
    Row("own reports, for treatment", PATIENT, QUERY, rec(), care(), NO, NOBODY),
    Row("own reports, for research", PATIENT, QUERY, rec(), own(purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("own reports, identity not proved", replace(PATIENT, verified=False), QUERY, rec(), OWN, NO, "person.unverified"),
    Row("another's reports", OTHER, QUERY, rec(INFORMED), OWN, NO, "person.foreign"),
    Row("another's reports, level 2", OTHER, QUERY, rec(INFORMED, level=2), OWN, NO, "person.foreign"),
    Row("own record used for research by oneself", PATIENT, RESEARCH, data(2), study(), NO, "project.none"),
    Row("own record released by oneself", PATIENT, RELEASE, data(2), study(), NO, "project.none"),
    Row("guardian", GUARDIAN, QUERY, rec(INFORMED), OWN, YES, "person.guardian-query"),
    Row("guardian, details", GUARDIAN, QUERY, rec(AUTHORISED), OWN, NO, NOBODY),
    Row("guardian, level 5", GUARDIAN, QUERY, rec(level=5), replace(STRICT, purpose=Purpose.OWN_CARE), NO, "level.5-attending"),
    Row("guardian of another", replace(GUARDIAN, patients=frozenset({"p2"})), QUERY, rec(), OWN, NO, "person.foreign"),
    Row("guardian of two", replace(GUARDIAN, patients=frozenset({"p1", "p2"})), QUERY, rec(), OWN, YES,
        "person.guardian-query"),
    Row("guardian, identity not proved", replace(GUARDIAN, verified=False), QUERY, rec(), OWN, NO, "person.unverified"),
    Row("guardian, papers not checked", replace(GUARDIAN, bound=False), QUERY, rec(), OWN, NO, "person.unbound"),
    Row("guardian needs no authorisation", replace(GUARDIAN, authorised=True), QUERY, rec(), OWN, YES, "person.guardian-query"),
    Row("guardian, for treatment", GUARDIAN, QUERY, rec(), CARE, NO, NOBODY),
    Row("child with authorisation", CHILD, QUERY, rec(INFORMED), OWN, YES, "person.child-query"),
    Row("child without authorisation", replace(CHILD, authorised=False), QUERY, rec(), OWN, NO, "person.unauthorised"),
    Row("child, papers not checked", replace(CHILD, bound=False), QUERY, rec(), OWN, NO, "person.unbound"),
    Row("child, identity not proved", replace(CHILD, verified=False), QUERY, rec(), OWN, NO, "person.unverified"),
    Row("child of another", replace(CHILD, patients=frozenset()), QUERY, rec(), OWN, NO, "person.foreign"),
    Row("child, details", CHILD, QUERY, rec(AUTHORISED), OWN, NO, NOBODY),
    # A.2.1-b: sensitive findings
    Row("a sensitive finding", PATIENT, QUERY, rec(INFORMED, sensitive=True), OWN, NO, "person.sensitive"),
    Row("a sensitive finding, guardian", GUARDIAN, QUERY, rec(sensitive=True), OWN, NO, "person.sensitive"),
    Row("a sensitive finding, child", CHILD, QUERY, rec(sensitive=True), OWN, NO, "person.sensitive"),
    Row("a sensitive finding, saved", PATIENT, SAVE, rec(sensitive=True), OWN_TOLD, NO, "person.sensitive"),
    Row("a sensitive finding, doctor", DOCTOR, VIEW, rec(INFORMED, sensitive=True), CARE, YES, "treatment.informed"),
    # A.2.1-c: three months
    Row("of today", PATIENT, QUERY, rec(age_days=0), OWN, YES, "person.query"),
    Row("92 days old", PATIENT, QUERY, rec(age_days=92), OWN, YES, "person.query"),
    Row("93 days old", PATIENT, QUERY, rec(age_days=93), OWN, NO, "person.window"),
    Row("93 days old, asked only", PATIENT, QUERY, rec(age_days=93), own(window_asked=365), NO, "person.window"),
    Row("93 days old, approved only", PATIENT, QUERY, rec(age_days=93), own(window_approved=365), NO, "person.window"),
    Row("93 days old, asked and approved", PATIENT, QUERY, rec(age_days=93), own(window_asked=365,
        window_approved=365), YES, "person.query"),
    Row("as old as asked and approved", PATIENT, QUERY, rec(age_days=365), own(window_asked=365,
        window_approved=365), YES, "person.query"),
    Row("older than asked", PATIENT, QUERY, rec(age_days=366), own(window_asked=365, window_approved=400), NO, "person.window"),
    Row("older than approved", PATIENT, QUERY, rec(age_days=366), own(window_asked=400, window_approved=365), NO,
        "person.window"),
    Row("a shorter window asked for", PATIENT, QUERY, rec(age_days=60), own(window_asked=30), YES, "person.query"),
    Row("93 days old, guardian", GUARDIAN, QUERY, rec(age_days=93), OWN, NO, "person.window"),
    Row("93 days old, child", CHILD, QUERY, rec(age_days=93), OWN, NO, "person.window"),
    Row("93 days old, downloaded", PATIENT, DOWNLOAD, rec(age_days=93), OWN_TOLD, NO, "person.window"),
    Row("years old, doctor", DOCTOR, VIEW, rec(age_days=4000), CARE, YES, "treatment.default"),
)

OPERATIONS = (
    # A.2.2: rights and notices, persons
    Row("patient saves", PATIENT, SAVE, rec(), OWN_TOLD, YES, "person.keep"),
    Row("patient copies", PATIENT, COPY, rec(), OWN_TOLD, YES, "person.keep"),
    Row("patient prints", PATIENT, PRINT, rec(INFORMED), OWN_TOLD, YES, "person.keep"),
    Row("patient downloads", PATIENT, DOWNLOAD, rec(INFORMED), OWN_TOLD, YES, "person.keep"),
    Row("patient saves, no notice", PATIENT, SAVE, rec(), OWN, NO, "keep.notice"),
    Row("patient copies, no notice", PATIENT, COPY, rec(), OWN, NO, "keep.notice"),
    Row("patient prints, no notice", PATIENT, PRINT, rec(), OWN, NO, "keep.notice"),
    Row("patient downloads, no notice", PATIENT, DOWNLOAD, rec(), OWN, NO, "keep.notice"),
    Row("patient saves, right to the rest", replace(PATIENT, rights=KEEP - {SAVE}), SAVE, rec(), OWN_TOLD, NO, "keep.right"),
    Row("patient copies, right to the rest", replace(PATIENT, rights=KEEP - {COPY}), COPY, rec(), OWN_TOLD, NO, "keep.right"),
    Row("patient prints, right to the rest", replace(PATIENT, rights=KEEP - {PRINT}), PRINT, rec(), OWN_TOLD, NO, "keep.right"),
    Row("patient downloads, right to the rest", replace(PATIENT, rights=KEEP - {DOWNLOAD}), DOWNLOAD, rec(),
        OWN_TOLD, NO, "keep.right"),
    Row("patient saves, that right alone", replace(PATIENT, rights=frozenset({SAVE})), SAVE, rec(), OWN_TOLD, YES,
        "person.keep"),
    Row("patient, no right, no notice", replace(PATIENT, rights=frozenset()), SAVE, rec(), OWN, NO, "keep.right keep.notice"),
    Row("patient without rights queries", replace(PATIENT, rights=frozenset()), QUERY, rec(), OWN, YES, "person.query"),
    Row("patient saves details", PATIENT, SAVE, rec(AUTHORISED), OWN_TOLD, NO, NOBODY),
    Row("patient saves another's", OTHER, SAVE, rec(), OWN_TOLD, NO, "person.foreign"),
    Row("patient saves for research", PATIENT, SAVE, rec(), replace(OWN_TOLD, purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("unverified patient saves", replace(PATIENT, verified=False), SAVE, rec(), OWN_TOLD, NO, "person.unverified"),
    Row("guardian downloads", GUARDIAN, DOWNLOAD, rec(), OWN_TOLD, YES, "person.guardian-keep"),
    Row("guardian downloads, no notice", GUARDIAN, DOWNLOAD, rec(), OWN, NO, "keep.notice"),
    Row("guardian downloads, no right", replace(GUARDIAN, rights=frozenset()), DOWNLOAD, rec(), OWN_TOLD, NO, "keep.right"),
    Row("guardian downloads, papers not checked", replace(GUARDIAN, bound=False), DOWNLOAD, rec(), OWN_TOLD, NO,
        "person.unbound"),
    Row("child prints", CHILD, PRINT, rec(), OWN_TOLD, YES, "person.guardian-keep"),
    Row("child prints, not authorised", replace(CHILD, authorised=False), PRINT, rec(), OWN_TOLD, NO, "person.unauthorised"),
    # staff
    Row("doctor in charge saves", DOCTOR, SAVE, rec(AUTHORISED), TOLD, YES, "treatment.keep"),
    Row("doctor in charge prints", DOCTOR, PRINT, rec(), TOLD, YES, "treatment.keep"),
    Row("doctor in charge downloads", DOCTOR, DOWNLOAD, rec(), TOLD, YES, "treatment.keep"),
    Row("doctor in charge, no right", replace(DOCTOR, rights=frozenset()), SAVE, rec(), TOLD, NO, "keep.right"),
    Row("doctor in charge, another right", replace(DOCTOR, rights=frozenset({COPY})), SAVE, rec(), TOLD, NO, "keep.right"),
    Row("doctor in charge, no notice", DOCTOR, SAVE, rec(), CARE, NO, "keep.notice"),
    Row("doctor in charge, for research", DOCTOR, SAVE, rec(), replace(TOLD, purpose=Purpose.RESEARCH), NO, NOBODY),
    Row("doctor of the group saves", COLLEAGUE, SAVE, rec(), TOLD, NO, NOBODY),
    Row("superior saves", replace(SENIOR, rights=KEEP), SAVE, rec(doctors=(replace(DOCTOR, superior=replace(SENIOR,
        rights=KEEP)),)), TOLD, NO, NOBODY),
    Row("nurse by name saves", NAMED_NURSE, SAVE, rec(), TOLD, NO, NOBODY),
    Row("resident in charge saves", replace(RESIDENT, rights=KEEP), SAVE, rec(doctors=(replace(RESIDENT,
        rights=KEEP),)), TOLD, NO, NOBODY),
    Row("doctor of elsewhere saves", OUTSIDER, SAVE, rec(), TOLD, NO, "level.4-treating"),
    Row("researcher saves", RESEARCHER, SAVE, data(3), replace(STUDYING, notified=True), NO, NOBODY),
    Row("researcher downloads level 2", RESEARCHER, DOWNLOAD, data(2), replace(STUDYING, notified=True), NO, NOBODY),
)

PROJECTS = (
    # 5.6.2-a and -b: within what was approved
    Row("within range and term", RESEARCHER, RESEARCH, data(3, age_days=4000), STUDYING, YES, "research.level-3"),
    Row("no project named", RESEARCHER, RESEARCH, data(), study(project=""), NO, "project.none"),
    Row("another project named", RESEARCHER, RESEARCH, data(), study(project="brains"), NO, "project.none"),
    Row("expired a second ago", with_project(until=NOW - timedelta(seconds=1)), RESEARCH, data(), STUDYING, NO,
        "project.expired"),
    Row("expires just now", with_project(until=NOW), RESEARCH, data(), STUDYING, NO, "project.expired"),
    Row("lapses in a second", with_project(until=NOW + timedelta(seconds=1)), RESEARCH, data(), STUDYING, YES,
        "research.level-3"),
    Row("expired, level 2", with_project(until=NOW), TRAIN, data(2), STUDYING, NO, "project.expired"),
    Row("another collection", RESEARCHER, RESEARCH, data(source="ct"), STUDYING, NO, "project.source"),
    Row("no collection", with_project(sources=frozenset()), RESEARCH, data(), STUDYING, NO, "project.source"),
    Row("two collections", with_project(sources=frozenset({"ct", "cine"})), RESEARCH, data(), STUDYING, YES,
        "research.level-3"),
    Row("above the approved level", with_project(level=2), RESEARCH, data(3), STUDYING, NO, "project.level"),
    Row("at the approved level", with_project(level=2), RESEARCH, data(2), STUDYING, YES, "research.level-2"),
    Row("more detail than approved", RESEARCHER, RESEARCH, data(granularity=AUTHORISED), STUDYING, NO, "project.granularity"),
    Row("less detail than approved", with_project(granularities=frozenset({INFORMED})), RESEARCH, data(), STUDYING,
        NO, "project.granularity"),
    Row("detail as approved", RESEARCHER, RESEARCH, data(granularity=INFORMED), STUDYING, YES, "research.level-3"),
    Row("research, approved for training", with_project(uses=frozenset({TRAIN})), RESEARCH, data(), STUDYING, NO,
        "project.use"),
    Row("training, approved for training", with_project(uses=frozenset({TRAIN})), TRAIN, data(), STUDYING, YES,
        "research.level-3"),
    Row("training, approved for research", with_project(uses=frozenset({RESEARCH})), TRAIN, data(), STUDYING, NO,
        "project.use"),
    Row("release, not approved", with_project(uses=frozenset({RESEARCH, TRAIN})), RELEASE, data(2), STUDYING, NO,
        "project.use"),
    Row("not de-identified", RESEARCHER, RESEARCH, replace(data(), deidentified=False), STUDYING, NO, "research.identified"),
    Row("not de-identified, level 2", RESEARCHER, TRAIN, replace(data(2), deidentified=False), STUDYING, NO,
        "research.identified"),
    Row("not de-identified, release", MANAGER, RELEASE, replace(data(3), deidentified=False), STUDYING, NO,
        "research.identified"),
    Row("for treatment", RESEARCHER, RESEARCH, data(), study(purpose=Purpose.TREATMENT), NO, NOBODY),
    Row("release for treatment", MANAGER, RELEASE, data(), study(purpose=Purpose.TREATMENT), NO, NOBODY),
    Row("in two projects", replace(RESEARCHER, projects=frozenset({HEARTS, replace(HEARTS, id="brains")})), TRAIN,
        data(), STUDYING, YES, "research.level-3"),
    Row("the wrong one of two projects", replace(RESEARCHER, projects=frozenset({HEARTS, replace(HEARTS, id="brains",
        sources=frozenset({"ct"}))})), TRAIN, data(), study(project="brains"), NO, "project.source"),
)

TRUST = (
    # 5.4.2-d and A.2.3, for staff, patients and researchers
    Row("doctor, unauthenticated", DOCTOR, VIEW, rec(), care(authenticated=None), NO, "trust.unauthenticated"),
    Row("patient, unauthenticated", PATIENT, QUERY, rec(), own(authenticated=None), NO, "trust.unauthenticated"),
    Row("guardian, unauthenticated", GUARDIAN, QUERY, rec(), own(authenticated=None), NO, "trust.unauthenticated"),
    Row("researcher, unauthenticated", RESEARCHER, TRAIN, data(), study(authenticated=None), NO, "trust.unauthenticated"),
    Row("a session of 8 hours", DOCTOR, VIEW, rec(), care(authenticated=NOW - timedelta(hours=8)), YES, "treatment.default"),
    Row("a session of 8 h 1 s", DOCTOR, VIEW, rec(), care(authenticated=NOW - timedelta(hours=8, seconds=1)), NO,
        "trust.session"),
    Row("authenticated in the future", DOCTOR, VIEW, rec(), care(authenticated=NOW + timedelta(seconds=1)), NO,
        "trust.session"),
    Row("patient, session too old", PATIENT, QUERY, rec(), own(authenticated=NOW - timedelta(days=1)), NO, "trust.session"),
    Row("asked 5 minutes ago", DOCTOR, VIEW, rec(), care(asked=NOW - timedelta(minutes=5)), YES, "treatment.default"),
    Row("asked 5 min 1 s ago", DOCTOR, VIEW, rec(), care(asked=NOW - timedelta(minutes=5, seconds=1)), NO, "trust.stale"),
    Row("asked in the future", DOCTOR, VIEW, rec(), care(asked=NOW + timedelta(seconds=1)), NO, "trust.stale"),
    Row("patient, asked yesterday", PATIENT, QUERY, rec(), own(asked=NOW - timedelta(days=1)), NO, "trust.stale"),
    Row("doctor, no purpose", DOCTOR, VIEW, rec(), care(purpose=None), NO, "trust.purpose"),
    Row("patient, no purpose", PATIENT, QUERY, rec(), own(purpose=None), NO, "trust.purpose"),
    Row("researcher, no purpose", RESEARCHER, TRAIN, data(), study(purpose=None), NO, "trust.purpose"),
    Row("doctor, in clear", DOCTOR, VIEW, rec(), care(encrypted=False), NO, "channel.encrypted"),
    Row("patient, in clear", PATIENT, QUERY, rec(), own(encrypted=False), NO, "channel.encrypted"),
    Row("patient downloads in clear", PATIENT, DOWNLOAD, rec(), replace(OWN_TOLD, encrypted=False), NO, "channel.encrypted"),
    Row("guardian, in clear", GUARDIAN, QUERY, rec(), own(encrypted=False), NO, "channel.encrypted"),
    Row("child, in clear", CHILD, QUERY, rec(), own(encrypted=False), NO, "channel.encrypted"),
    Row("release in clear", MANAGER, RELEASE, data(), study(encrypted=False), NO, "channel.encrypted"),
    Row("doctor, no integrity", DOCTOR, VIEW, rec(), care(integrity=False), NO, "channel.integrity"),
    Row("patient, no integrity", PATIENT, QUERY, rec(), own(integrity=False), NO, "channel.integrity"),
    Row("release, no integrity", MANAGER, RELEASE, data(), study(integrity=False), NO, "channel.integrity"),
    Row("in clear, no integrity", PATIENT, QUERY, rec(), own(encrypted=False, integrity=False), NO,
        "channel.encrypted channel.integrity"),
    Row("nothing attested", DOCTOR, VIEW, rec(), Context(NOW), NO,
        "trust.unauthenticated trust.purpose channel.encrypted channel.integrity"),
)
# fmt: on

ROWS = (*TREATMENT, *DISEASES, *LEVELS, *PERSONS, *OPERATIONS, *PROJECTS, *TRUST)


def ask(row: Row) -> Request:
    return Request(row.principal, row.action, row.record, row.context)
