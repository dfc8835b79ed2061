"""A trace as PROV-JSON: the W3C's data model of provenance (PROV-DM, 2013) in its member submission's JSON (April 2013).

An artefact is an entity, its parts are entities that it has as members; what made it is an activity that used what it was made
from; who was responsible is an agent. What is gone is an entity that an activity invalidated. Ledger lines stand as attributes
``fps:ledger``; hashes are there to compare with the lines, not to find the data by.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final
from urllib.parse import quote

from prov.constants import PROV, PROV_LABEL, PROV_LOCATION, PROV_TYPE
from prov.identifier import Identifier, QualifiedName
from prov.model import ProvDocument

from fedprivseg.governance.lineage.provenance import Artefact, Part, Reference, Trace

_NAMESPACE = "urn:fedprivseg:terms:"

Attributes = list[tuple[QualifiedName | str | Identifier, Any]]


def prov_json(trace: Trace) -> str:
    """The trace as one PROV-JSON document, indented; the same trace always gives the same text."""
    return _Document(trace).text()


@final
class _Document:
    """The document of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._document = ProvDocument()
        self._fps = self._document.add_namespace("fps", _NAMESPACE)
        self._document.add_namespace("run", f"urn:fedprivseg:run:{quote(trace.run)}:")
        self._deletions: set[str] = set()
        for name in dict.fromkeys(each.holder for each in trace.artefacts):
            key = trace.keys.get(name.split(" (")[0])
            attributes: Attributes = [(PROV_TYPE, PROV["Organization"]), (PROV_LABEL, name)]
            self._document.agent(_agent(name), [*attributes, *self._many("publicKey", [key] if key else [])])
        ends = [each for each in trace.artefacts if each.sort == "end"]
        for each in ends:
            activity = self._deletion(each.references[0], f"{each.title}: {each.act}")
            self._document.wasAssociatedWith(activity, _agent(each.holder))
        for each in trace.artefacts:
            if each.sort != "end":
                self._artefact(each, trace.label if each.sort == "file" and trace.side == "site" else "")

    def text(self) -> str:
        return str(self._document.serialize(indent=1)) + "\n"

    def _artefact(self, artefact: Artefact, subject: str) -> None:
        document, entity, activity = self._document, _entity(artefact.id), f"run:act/{artefact.id}"
        references, start = artefact.references, artefact.time or None
        document.entity(
            entity,
            [
                (PROV_LABEL, artefact.title),
                (PROV_TYPE, self._fps[artefact.sort]),
                *([(PROV_TYPE, PROV["Collection"])] if artefact.parts else []),
                (PROV_LOCATION, artefact.where),
                *self._many("lane", [artefact.lane]),
                *self._many("state", [artefact.state]),
                *self._many("done", artefact.done),
                *self._many("protection", artefact.protections),
                *self._many("lacking", artefact.lacking),
                *self._many("level", [] if artefact.level is None else [artefact.level]),
                *self._many("ledger", references),
                *self._many("subject", [subject] if subject else []),
            ],
        )
        last = max([artefact.time, *(each.time for each in references)]) if start else None
        told = self._many("ledger", [f"{each} {each.event}" for each in references])
        document.activity(activity, start, last, [(PROV_LABEL, artefact.act), *told])
        document.wasGeneratedBy(entity, activity, start)
        document.wasAssociatedWith(activity, _agent(artefact.holder))
        document.wasAttributedTo(entity, _agent(artefact.holder))
        for source in artefact.made_from:
            document.used(activity, _entity(source))
            document.wasDerivedFrom(entity, _entity(source), activity)
        for number, part in enumerate(artefact.parts):
            document.entity(f"{entity}/{number}", self._part(part))
            document.hadMember(entity, f"{entity}/{number}")
        if artefact.state == "gone":
            ended = artefact.ended
            why = self._deletion(ended, ended.event) if ended else f"run:act/deletion/{artefact.id}"
            if ended is None:
                document.activity(why, None, None, [(PROV_LABEL, "deleted; no ledger line here says why")])
            document.wasInvalidatedBy(entity, why, ended.time if ended else None)

    def _deletion(self, reference: Reference, label: str) -> str:
        """A withdrawal or a destruction: no thing, but an act of somebody's, by which things ended. Declared once."""
        activity = f"run:act/deletion/{reference}"
        if activity not in self._deletions:
            self._deletions.add(activity)
            attributes: Attributes = [(PROV_LABEL, label), *self._many("ledger", [reference])]
            self._document.activity(activity, reference.time, reference.time, attributes)
        return activity

    def _part(self, part: Part) -> Attributes:
        sha256, here = [part.sha256] if part.sha256 else [], [] if part.here is None else [part.here]
        return [(PROV_LABEL, part.name), *self._many("sha256", sha256), *self._many("here", here)]

    def _many(self, name: str, values: Iterable[object]) -> Attributes:
        """An attribute of ours, once a value; references as texts."""
        return [(self._fps[name], str(each) if isinstance(each, Reference) else each) for each in values]


def _entity(id: str) -> str:
    return f"run:artefact/{id}"


def _agent(holder: str) -> str:
    owner, role = holder.rstrip(")").split(" (")
    return f"run:agent/{quote(owner)}/{quote(role.replace(' ', '-'))}"
