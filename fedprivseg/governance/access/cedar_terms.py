"""A request in the terms of the Cedar schema: its entities and its context, built again for every decision."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from fedprivseg.governance.access.roles import Context, Guardian, Patient, Project, Record, Request, Staff, upwards


def entities(request: Request) -> list[dict[str, Any]]:
    """The record, the principal with its projects, and the posts of these, of the doctors in charge and of all above.

    Raises ValueError if one member of staff is described in two roles: which one is true cannot be known here. Of anybody
    but the principal, the post is all that counts.
    """
    principal, record = request.principal, request.record
    staff: dict[str, Staff] = {}
    for person in (*((principal,) if isinstance(principal, Staff) else ()), *record.doctors):
        for each in (person, *upwards(person)):
            if _role(staff.setdefault(each.id, each)) != _role(each):
                raise ValueError("a member of staff is described in two roles")
    found = [_record(record), *(_post(each) for each in staff.values())]
    if isinstance(principal, Staff):
        return [*found, _staff(principal), *(_project(project) for project in principal.projects)]
    return [*found, _person(principal)]


def _role(person: Staff) -> tuple[object, ...]:
    return person.title, person.department, person.groups, person.superior and person.superior.id


def _post(person: Staff) -> dict[str, Any]:
    parents = [] if person.superior is None else [uid("Post", person.superior.id)]
    return {"uid": uid("Post", person.id), "attrs": {}, "parents": parents}


def _staff(person: Staff) -> dict[str, Any]:
    attributes = {
        "post": uid("Post", person.id),
        "title": uid("Title", person.title),
        "department": person.department,
        "groups": sorted(person.groups),
        "projects": uids("Project", (project.id for project in person.projects)),
        "rights": uids("Action", person.rights),
    }
    return {"uid": uid("Staff", person.id), "attrs": attributes, "parents": []}


def _project(project: Project) -> dict[str, Any]:
    attributes = {
        "sources": sorted(project.sources),
        "level": project.level,
        "granularities": uids("Granularity", project.granularities),
        "uses": uids("Action", project.uses),
        "until": seconds(project.until),
    }
    return {"uid": uid("Project", project.id), "attrs": attributes, "parents": []}


def _person(person: Patient | Guardian) -> dict[str, Any]:
    attributes: dict[str, Any] = {"verified": person.verified, "rights": uids("Action", person.rights)}
    if isinstance(person, Guardian):
        attributes |= {
            "kinship": uid("Kinship", person.kinship),
            "bound": person.bound,
            "authorised": person.authorised,
            "patients": uids("Patient", person.patients),
        }
    return {"uid": uid(type(person).__name__, person.id), "attrs": attributes, "parents": []}


def _record(record: Record) -> dict[str, Any]:
    attributes = {
        "patient": uid("Patient", record.patient),
        "department": record.department,
        "source": record.source,
        "level": record.level,
        "granularity": uid("Granularity", record.granularity),
        "doctors": uids("Staff", (doctor.id for doctor in record.doctors)),
        "treating": uids("Staff", record.treating),
        "attending": uids("Staff", record.attending),
        "special": record.special,
        "infectious": record.infectious,
        "sensitive": record.sensitive,
        "deidentified": record.deidentified,
        "ageDays": record.age_days,
        **({"group": record.group} if record.group else {}),
    }
    parents = uids("Post", (doctor.id for doctor in record.doctors))
    return {"uid": uid("Record", record.id), "attrs": attributes, "parents": parents}


def context_of(context: Context, now: int) -> dict[str, Any]:
    """The circumstances of a request. now: Unix time in seconds. What is not known is left out: no policy can read it."""
    said: dict[str, Any] = {
        "now": now,
        "asked": seconds(context.asked),
        "encrypted": context.encrypted,
        "integrity": context.integrity,
        "secondFactor": context.second_factor,
        "controlledPlace": context.controlled_place,
        "notified": context.notified,
        "windowAsked": context.window_asked,
        "windowApproved": context.window_approved,
    }
    if context.authenticated is not None:
        said["authenticated"] = seconds(context.authenticated)
    if context.purpose is not None:
        said["purpose"] = uid("Purpose", context.purpose)
    if context.project:
        said["project"] = uid("Project", context.project)
    return said


def uid(kind: str, name: str) -> dict[str, str]:
    """The entity `name` of type `kind`."""
    # The structured form: a name from outside is never part of Cedar's text.
    return {"type": kind, "id": name}


def uids(kind: str, names: Iterable[str]) -> list[dict[str, str]]:
    """The entities `names` of type `kind`."""
    return [uid(kind, name) for name in names]


def seconds(moment: datetime) -> int:
    """Unix time, cut to whole seconds."""
    return int(moment.timestamp())
