"""A trace as PROV-JSON: the W3C's data model of provenance (PROV-DM, 2013) in its member submission's JSON (April 2013).

A form is an entity, its parts are entities that it has as members; what made it is an activity that used what it was made from;
who was responsible is an agent. What is gone is an entity that an activity invalidated. Ledger lines stand as attributes
``fps:ledger``; hashes are there to compare with the lines, not to find the data by.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fedprivseg.governance.lineage.provenance import Artefact, Part, Trace

_NAMESPACE = "urn:fedprivseg:terms:"

Document = dict[str, dict[str, Any]]


def prov_json(trace: Trace) -> str:
    """The trace as one PROV-JSON document, indented; the same trace always gives the same text."""
    document: Document = {
        "prefix": {"fps": _NAMESPACE, "run": f"urn:fedprivseg:run:{quote(trace.run)}:"},
        "entity": {},
        "activity": {},
        "agent": {},
    }
    for name in dict.fromkeys(form.holder for form in trace.forms):
        owner = name.split(" (")[0]
        document["agent"][_agent(name)] = {
            "prov:type": _qualified("prov:Organization"),
            "prov:label": name,
            **({"fps:publicKey": trace.keys[owner]} if owner in trace.keys else {}),
        }
    for form in trace.forms:
        if form.sort == "end":
            _end(document, trace, form)
        else:
            _form(document, form)
    if trace.side == "site":
        document["entity"][_entity("file")]["fps:subject"] = trace.label
    return json.dumps({name: content for name, content in document.items() if content}, indent=1) + "\n"


def _form(document: Document, form: Artefact) -> None:
    entity, activity = _entity(form.id), f"run:act/{form.id}"
    document["entity"][entity] = {
        "prov:label": form.title,
        "prov:type": [_qualified(f"fps:{form.sort}"), *([_qualified("prov:Collection")] if form.parts else [])],
        "prov:location": form.where,
        "fps:lane": form.lane,
        "fps:state": form.state,
        **_many("fps:done", form.done),
        **_many("fps:protection", form.protections),
        **_many("fps:lacking", form.lacking),
        **({} if form.level is None else {"fps:level": form.level}),
        **_many("fps:ledger", [str(reference) for reference in form.references]),
    }
    document["activity"][activity] = {
        "prov:label": form.act,
        **({"prov:startTime": form.time, "prov:endTime": _last(form)} if form.time else {}),
        **_many("fps:ledger", [f"{reference} {reference.event}" for reference in form.references]),
    }
    generated = {"prov:entity": entity, "prov:activity": activity, **({"prov:time": form.time} if form.time else {})}
    _relate(document, "wasGeneratedBy", generated)
    _relate(document, "wasAssociatedWith", {"prov:activity": activity, "prov:agent": _agent(form.holder)})
    _relate(document, "wasAttributedTo", {"prov:entity": entity, "prov:agent": _agent(form.holder)})
    for source in form.made_from:
        _relate(document, "used", {"prov:activity": activity, "prov:entity": _entity(source)})
        derived = {"prov:generatedEntity": entity, "prov:usedEntity": _entity(source), "prov:activity": activity}
        _relate(document, "wasDerivedFrom", derived)
    for number, part in enumerate(form.parts):
        name = f"{entity}/{number}"
        document["entity"][name] = _part(part)
        _relate(document, "hadMember", {"prov:collection": entity, "prov:entity": name})
    if form.state == "gone":
        ended = form.ended
        why = f"run:act/deletion/{ended}" if ended else f"run:act/deletion/{form.id}"
        document["activity"].setdefault(
            why,
            {
                "prov:label": ended.event if ended else "deleted; no ledger line here says why",
                **(
                    {"prov:startTime": ended.time, "prov:endTime": ended.time, "fps:ledger": str(ended)}
                    if ended
                    else {}
                ),
            },
        )
        gone = {"prov:entity": entity, "prov:activity": why, **({"prov:time": ended.time} if ended else {})}
        _relate(document, "wasInvalidatedBy", gone)


def _end(document: Document, trace: Trace, form: Artefact) -> None:
    """A withdrawal or a destruction: no thing, but an act of somebody's, by which things ended."""
    activity = f"run:act/deletion/{form.references[0]}"
    document["activity"][activity] = {
        "prov:label": f"{form.title}: {form.act}",
        "prov:startTime": form.time,
        "prov:endTime": form.time,
        **_many("fps:ledger", [str(reference) for reference in form.references]),
    }
    _relate(document, "wasAssociatedWith", {"prov:activity": activity, "prov:agent": _agent(form.holder)})


def _part(part: Part) -> Mapping[str, Any]:
    return {
        "prov:label": part.name,
        **({"fps:sha256": part.sha256} if part.sha256 else {}),
        **({} if part.here is None else {"fps:here": part.here}),
    }


def _relate(document: Document, relation: str, fields: Mapping[str, Any]) -> None:
    relations = document.setdefault(relation, {})
    relations[f"_:{relation}{len(relations)}"] = dict(fields)


def _many(name: str, values: Any) -> dict[str, Any]:
    return {name: list(values)} if values else {}


def _last(form: Artefact) -> str:
    return max([form.time, *(reference.time for reference in form.references)])


def _entity(id: str) -> str:
    return f"run:form/{id}"


def _agent(holder: str) -> str:
    return f"run:agent/{quote(holder.split(' (')[0])}/{quote(holder.split(' (')[1].rstrip(')').replace(' ', '-'))}"


def _qualified(name: str) -> dict[str, str]:
    """A value that is a qualified name."""
    return {"$": name, "type": "prov:QUALIFIED_NAME"}
